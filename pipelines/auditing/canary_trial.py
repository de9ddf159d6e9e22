"""A run with canaries in its data: it scores them during training, guesses at the end, and bounds epsilon.

Source: Steinke, Nasr and Jagielski 2023, arXiv:2305.08846, algorithm 1; Andrew et al. 2023, arXiv:2302.03098.
"""

import numpy as np
from numpy.typing import NDArray

from pipelines.auditing.canaries import ClientCanaries, ExampleCanaries
from pipelines.auditing.finding import Finding
from pipelines.auditing.lower_bounds import one_run_lower_bound
from pipelines.auditing.scores import ClientScores, ExampleScores, Floats, Score
from pipelines.core.errors import UserError
from pipelines.engines.interface import OnRound, RoundRecord, TrainingData
from pipelines.privacy.accounting.gaussian_pair import Gaussian, gaussian_pair_epsilon


class CanaryTrial:
    """Canaries in a run, and the guesses of an adversary who sees every step, or only the final model."""

    def __init__(self, canaries: ExampleCanaries | ClientCanaries, score: Score) -> None:
        """Starts before training.

        Args:
          canaries: in the training data.
          score: basis of the guesses: white_box or loss for examples, final or largest for clients.
        """
        self._canaries, self._score = canaries, score
        self._scores = (
            ClientScores(canaries, score) if isinstance(canaries, ClientCanaries) else ExampleScores(canaries, score)
        )

    @property
    def data(self) -> TrainingData:
        """The training data for the engine."""
        return self._canaries.data

    def watching(self, on_round: OnRound) -> OnRound:
        """Returns an `on_round` that scores the canaries first."""

        def watch(record: RoundRecord) -> None:
            self._scores.observe(record)
            on_round(record)

        return watch

    def scores(self) -> Floats:
        """One score per canary; a higher score means more likely included."""
        return self._scores.now()

    def conclude(self, *, audit: str, guesses: int, claim: float | None, delta: float, confidence: float) -> Finding:
        """Guesses which canaries were included, counts the correct guesses, and bounds epsilon.

        Args:
          audit: name of the audit.
          guesses: number of guesses: half of them "in", for the highest scores, and half of them "out", for the lowest.
          claim: the guarantee's epsilon; None if there is none.
          delta: of the bound on epsilon.
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
    """Counts correct guesses: "in" for the guesses / 2 highest scores, "out" for as many lowest scores.

    Raises:
      UserError: `guesses` is odd, or larger than the number of canaries.
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
