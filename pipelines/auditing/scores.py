"""Scores of canaries, computed step by step: a higher score means that the model was more likely trained on it.

A score uses only what a run releases, the model after each step, and what an auditor knows about the canaries before.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.auditing.canaries import ClientCanaries, ExampleCanaries
from pipelines.engines.evaluation import cross_entropies
from pipelines.engines.interface import Inputs, RoundRecord, TrainingData
from pipelines.model.spec import Dense, ModelSpec, Reshape, Weights

Floats = NDArray[np.float64]
Score = Literal["white_box", "loss", "final", "largest"]


class ExampleScores:
    """Scores of canary examples.

    Source: Steinke, Nasr and Jagielski 2023, arXiv:2305.08846, section 6.
    """

    def __init__(self, canaries: ExampleCanaries, score: Score) -> None:
        """Starts before training.

        Args:
          canaries: in the training data.
          score: white_box sums, over steps, the movement of the weights along the canary's normalised gradient. It is
            measured on the canary's own logits: exactly for a linear model, to first order for others. loss is the
            decrease of the canary's loss.
        """
        self._examples, self._score = canaries.examples, score
        self._latest = _linear_logits(canaries.data, self._examples.inputs)
        self._first: Floats | None = (
            None if self._latest is None else cross_entropies(self._latest, self._examples.labels)
        )
        self._white_box = np.zeros(len(canaries))
        lengths = np.linalg.norm(self._examples.inputs.reshape(len(canaries), -1).astype(np.float64), axis=1)
        self._lengths = np.sqrt(lengths**2 + 1)  # with the bias' input

    def observe(self, record: RoundRecord) -> None:
        """Updates the scores with one step."""
        if self._score == "loss" and record.step < record.steps:
            return
        logits = record.model.logits(self._examples.inputs).astype(np.float64)
        if self._latest is not None:
            # The gradient at the weights before the step, which the step used.
            parallel = -_softmax(self._latest)
            parallel[np.arange(len(parallel)), self._examples.labels] += 1
            lengths = np.maximum(np.linalg.norm(parallel, axis=1), 1e-12) * self._lengths
            self._white_box += ((logits - self._latest) * parallel).sum(axis=1) / lengths
        self._latest = logits

    def now(self) -> Floats:
        """One score per canary, (m,)."""
        if self._score == "white_box":
            return self._white_box
        assert self._latest is not None, "the last step is always observed"
        losses = cross_entropies(self._latest, self._examples.labels)
        return -losses if self._first is None else self._first - losses


class ClientScores:
    """Scores of canary clients: the cosine of the model's change with the change that the canary causes.

    For any other change, the cosine with a random direction is N(0, 1 / weights), to a good approximation.

    Source: Andrew et al. 2023, arXiv:2302.03098, sections 3.1 (the final model) and 3.2 (all iterates).
    """

    def __init__(self, canaries: ClientCanaries, score: Score) -> None:
        """Starts before training.

        Args:
          canaries: in the training data.
          score: final is the cosine with the change over the whole run; largest is the maximum over single rounds.
        """
        self._directions, self._score = canaries.directions, score
        self._before = _in_a_row(canaries.data.initial_weights)
        self._found = np.full(len(canaries), -np.inf)

    def observe(self, record: RoundRecord) -> None:
        """Updates the scores with one step."""
        if self._score == "final" and record.step < record.steps:
            return
        weights = _in_a_row(record.model.weights())
        lost = self._before - weights
        self._found = np.maximum(self._found, self._directions @ lost / max(float(np.linalg.norm(lost)), 1e-30))
        self._before = weights

    def now(self) -> Floats:
        """One score per canary, (m,)."""
        return self._found


def _in_a_row(weights: Weights) -> Floats:
    return np.concatenate([value.ravel() for value in weights]).astype(np.float64)


def _linear_logits(data: TrainingData, inputs: Inputs) -> Floats | None:
    """Logits at the starting weights of a linear model; None for other models, whose scores start after one step."""
    if any(not isinstance(layer, Reshape | Dense) for layer in data.spec.layers) or _layers(data.spec) != 1:
        return None
    kernel, bias = data.initial_weights
    return np.asarray(inputs.reshape(len(inputs), -1) @ kernel + bias, np.float64)


def _layers(spec: ModelSpec) -> int:
    return sum(isinstance(layer, Dense) for layer in spec.layers)


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
