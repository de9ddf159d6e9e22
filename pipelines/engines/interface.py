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
    """What clients that an audit planted contribute, in place of what training would give.

    It is a raw contribution: an engine clips, sums and noises it as any other.

    Attributes:
      rows: which update each of these clients sends whenever it joins; clients that are not a key train.
      updates: float32, shape (canaries, weights): what a client's weights lose, all of them in the spec's order.
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
      canaries: of an audit; engines over examples know none.
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
      data: with or without it.
      need: of whoever asks, for the message.

    Raises:
      UserError: there is none.
    """
    if data.partition is None:
        raise UserError(f"{need}: choose a partition, such as partition=iid")
    return data.partition


class FittedModel(Protocol):
    """A model as it stands while `on_round` runs; the one in a Fit stays as it is."""

    framework: Literal["pytorch", "tensorflow"]

    def logits(self, inputs: Inputs) -> Logits:
        """Maps inputs, shape (n, *features), to logits, float32, shape (n, classes)."""

    def weights(self) -> Weights:
        """Returns copies of the weights in the spec's order and layout."""

    def example_gradients(self, weights: Weights, inputs: Inputs, labels: Labels) -> NDArray[np.float64]:
        """Differentiates each example's cross-entropy alone, in float64, by nothing but the framework's autograd.

        It is slow, and shares no code with training: the reference that audits compare contributions with.

        Args:
          weights: where to differentiate, in the spec's order and layout; the model's own stay.
          inputs: float32, shape (n, *features).
          labels: int64, shape (n,).

        Returns:
          Gradients, shape (n, weights), all tensors in the spec's order and layout in a row.
        """

    def native(self) -> Any:
        """Returns the plain torch.nn.Module or tf.Module, float32 (n, *features) -> (n, classes), for export."""


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """One optimizer step (central) or one federated round that has just ended.

    Attributes:
      step: steps that ran so far, counted from 1.
      steps: steps that were planned.
      examples: examples processed so far; in a private run the expected number, since the realised one is private,
        and under user-level privacy of users, since the number of their examples is private too.
      train_s: seconds spent in training so far, callbacks excluded.
      model: the model as it stands now.
      plan: that a private run follows, as the engine has it.
      sampler: what a private run has trained on so far; private itself, but for its verdict.
      exposure: what about the engine lets others reach the data while it trains, in words; None where nothing does.
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
      facts: what the engine says of itself for the log, such as device, threads or gradient mode.
      sampler: whether the samples that were trained on fit the plan; None where nothing is sampled for privacy.
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
