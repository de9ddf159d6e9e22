"""A run with canaries in its data: scores while it trains, guesses when it ends, a bound from the guesses.

Source: Steinke, Nasr and Jagielski 2023, arXiv:2305.08846, algorithm 1; Andrew et al. 2023, arXiv:2302.03098.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.audit.bounds import Gaussian, gaussian_pair_epsilon, one_run_lower_bound
from pipelines.audit.canaries import Canaries
from pipelines.audit.finding import Finding
from pipelines.errors import UserError
from pipelines.model.spec import Dense, ModelSpec, Reshape
from pipelines.pipeline import Inputs, OnRound, RoundRecord, TrainingData
from pipelines.result import cross_entropies

Floats = NDArray[np.float64]
Score = Literal["white_box", "loss"]


class CanaryTrial:
    """Canaries in a run, and what an adversary who sees every step makes of them."""

    def __init__(self, canaries: Canaries, score: Score) -> None:
        """Starts before training.

        Args:
          canaries: planted.
          score: white_box adds up, over steps, how far the weights moved along the canary's normalised gradient, as
            far as the canary's own logits show it: exactly that in a linear model, to first order elsewhere. loss is
            how much its loss fell.
        """
        self._canaries, self._score = canaries, score
        data, examples = canaries.data, canaries.examples
        self._latest = _linear_logits(data, examples.inputs)
        self._first: Floats | None = None if self._latest is None else cross_entropies(self._latest, examples.labels)
        self._white_box = np.zeros(len(canaries))
        lengths = np.linalg.norm(examples.inputs.reshape(len(canaries), -1).astype(np.float64), axis=1)
        self._lengths = np.sqrt(lengths**2 + 1)  # with the bias' input

    @property
    def data(self) -> TrainingData:
        """What the engine gets."""
        return self._canaries.data

    def watching(self, on_round: OnRound) -> OnRound:
        """Returns an `on_round` that scores the canaries first."""

        def watch(record: RoundRecord) -> None:
            self._observe(record)
            on_round(record)

        return watch

    def _observe(self, record: RoundRecord) -> None:
        if self._score == "loss" and record.step < record.steps:
            return
        examples = self._canaries.examples
        logits = record.model.logits(examples.inputs).astype(np.float64)
        if self._latest is not None:
            # The gradient at the weights before the step: the one that the step was taken with.
            towards = -_softmax(self._latest)
            towards[np.arange(len(towards)), examples.labels] += 1
            lengths = np.maximum(np.linalg.norm(towards, axis=1), 1e-12) * self._lengths
            self._white_box += ((logits - self._latest) * towards).sum(axis=1) / lengths
        self._latest = logits

    def scores(self) -> Floats:
        """One a canary; higher means rather in."""
        if self._score == "white_box":
            return self._white_box
        assert self._latest is not None, "the last step is always observed"
        losses = cross_entropies(self._latest, self._canaries.examples.labels)
        return -losses if self._first is None else self._first - losses

    def conclude(self, *, audit: str, guesses: int, claim: float | None, delta: float, confidence: float) -> Finding:
        """Guesses and counts.

        Args:
          audit: its name.
          guesses: how many canaries are guessed: the upper half of them in, the lower half out.
          claim: the guarantee's epsilon; None where there is none.
          delta: at which epsilon is bounded.
          confidence: of the bound.
        """
        scores, included, count = self.scores(), self._canaries.included, len(self._canaries)
        correct = count_correct(scores, included, guesses)
        bound = one_run_lower_bound(
            canaries=count, guesses=guesses, correct=correct, delta=delta, confidence=confidence
        )
        return Finding(
            audit=audit,
            claim=claim,
            epsilon_lower_bound=bound,
            epsilon_estimate=_estimate(scores[~included], scores[included], delta),
            confidence=confidence,
            evidence={
                "canaries": count, "guesses": guesses, "correct": correct, "delta": delta, "score": self._score,
            },
        )  # fmt: skip


def count_correct(scores: Floats, included: NDArray[np.bool_], guesses: int) -> int:
    """Counts right guesses: "in" for the highest half of `guesses` scores, "out" for the lowest half.

    Raises:
      UserError: not an even number up to the number of canaries.
    """
    if guesses % 2 or not 2 <= guesses <= len(scores):
        raise UserError(f"audit.guesses={guesses} must be even and at most audit.canaries={len(scores)}")
    order = np.argsort(scores, kind="stable")
    half = guesses // 2
    return int(included[order[-half:]].sum() + (~included[order[:half]]).sum())


def _estimate(absent: Floats, present: Floats, delta: float) -> float | None:
    without, with_canary = _fit(absent), _fit(present)
    if without is None or with_canary is None:
        return None
    return gaussian_pair_epsilon(without, with_canary, delta)


def _fit(scores: Floats) -> Gaussian | None:
    if len(scores) < 2 or np.std(scores, ddof=1) == 0:
        return None
    return float(np.mean(scores)), float(np.std(scores, ddof=1))


def _linear_logits(data: TrainingData, inputs: Inputs) -> Floats | None:
    """Logits at the starting weights where the model is linear; None elsewhere, where scores start after one step."""
    if any(not isinstance(layer, Reshape | Dense) for layer in data.spec.layers) or _layers(data.spec) != 1:
        return None
    kernel, bias = data.initial_weights
    return np.asarray(inputs.reshape(len(inputs), -1) @ kernel + bias, np.float64)


def _layers(spec: ModelSpec) -> int:
    return sum(isinstance(layer, Dense) for layer in spec.layers)


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
