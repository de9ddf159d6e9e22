"""The narrow interface between the two training rooms and everything else. Framework-free: numpy only."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.core.errors import UserError
from pipelines.data.partition.division import Partition
from pipelines.model.spec import ModelSpec, Weights
from pipelines.privacy.mechanisms.base import Mechanism
from pipelines.privacy.sampling import Participation, SamplerVerdict

Inputs = NDArray[np.float32]
Labels = NDArray[np.int64]
Logits = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class CanaryUpdates:
    """The contributions of clients that an audit planted; these clients do not train.

    The engine clips, sums and noises such a contribution like any other, so it may exceed the clip norm.

    Attributes:
      rows: the row of `updates` that each of these clients sends whenever it joins; all other clients train.
      updates: float32, shape (canaries, weights): the decrease of all weights, in the spec's order.
    """

    rows: dict[int, int]
    updates: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What a training room may see: the training split only.

    Attributes:
      inputs: float32, shape (n, *features); images are (n, height, width, channels).
      labels: int64, shape (n,), values in [0, spec.classes).
      partition: which example belongs to which client; None in a central pipeline without users.
      spec: the architecture.
      initial_weights: where training starts, in the spec's order; the same for every pipeline.
      canaries: those of an audit; engines over examples have none.
    """

    inputs: Inputs
    labels: Labels
    partition: Partition | None
    spec: ModelSpec
    initial_weights: Weights
    canaries: CanaryUpdates | None = None


def require_partition(data: TrainingData, need: str = "a federated pipeline needs clients") -> Partition:
    """Returns the division among clients or users.

    Args:
      data: with or without a partition.
      need: what needs the partition, for the message.

    Raises:
      UserError: there is no partition.
    """
    if data.partition is None:
        raise UserError(f"{need}: choose a partition, such as partition=iid")
    return data.partition


class FittedModel(Protocol):
    """A trained model. One that `on_round` gets changes after that call; the one in a Fit does not change."""

    framework: Literal["pytorch", "tensorflow"]

    def logits(self, inputs: Inputs) -> Logits:
        """Maps inputs, shape (n, *features), to logits, float32, shape (n, classes)."""

    def weights(self) -> Weights:
        """Returns copies of the weights in the spec's order and layout."""

    def example_gradients(self, weights: Weights, inputs: Inputs, labels: Labels) -> NDArray[np.float64]:
        """Differentiates each example's cross-entropy separately, in float64, with the framework's autograd alone.

        It is slow and shares no code with training: audits compare contributions with it.

        Args:
          weights: where to differentiate, in the spec's order and layout; the model's own weights do not change.
          inputs: float32, shape (n, *features).
          labels: int64, shape (n,).

        Returns:
          Gradients, shape (n, weights): a row holds all tensors in the spec's order and layout.
        """

    def native(self) -> Any:
        """Returns the plain torch.nn.Module or tf.Module, float32 (n, *features) -> (n, classes), for export."""


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """One optimizer step (central) or one federated round that has just ended.

    Attributes:
      step: steps that ran so far, counted from 1.
      steps: steps that were planned.
      examples: examples processed so far. In a private run it is the expected number, since the real one is private.
        Under user-level privacy it counts users, since the number of their examples is private too.
      train_s: seconds spent in training so far, callbacks excluded.
      model: the model after this step.
      plan: the engine's plan in a private run; None otherwise.
      sampler: the record of a private run's samples so far; all of it is private except for its verdict.
      exposure: how others can reach the data while the engine trains, in words; None if they cannot.
    """

    step: int
    steps: int
    examples: float
    train_s: float
    model: FittedModel
    plan: Mechanism | None = None
    sampler: Participation | None = None
    exposure: str | None = None


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The end of training.

    Attributes:
      record: the last step's record.
      executed: the plan with the steps that ran, for a private pipeline; None otherwise.
      facts: facts about the engine for the log, such as device, threads or gradient mode.
      sampler: whether the samples that were trained on fit the plan; None if the run is not private.
    """

    record: RoundRecord
    executed: Mechanism | None
    facts: dict[str, str]
    sampler: SamplerVerdict | None = None


OnRound = Callable[[RoundRecord], None]


class Pipeline(Protocol):
    """One way to train. Constructed from its settings (and plan, if private); holds no data."""

    def fit(self, data: TrainingData, on_round: OnRound) -> Fit:
        """Trains, and calls `on_round` after every step; an exception that it raises ends training."""
