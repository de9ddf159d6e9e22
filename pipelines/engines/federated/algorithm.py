"""What a training process is built from: everything that its graphs depend on."""

from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

from pipelines.config.pipeline_settings import FederatedConfig
from pipelines.engines.federated.engine import tf
from pipelines.engines.federated.secure import SumBounds
from pipelines.engines.federated.tff_noise import Noise
from pipelines.model.spec import ModelSpec

# Local steps that the graph unrolls. A step inside a loop takes TensorFlow 1.4 to 2 times as long. Each unrolled step
# makes the first round of a process slower, by a fifth of a second for the CNN.
UNROLLED_STEPS = 8


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """An optimizer by name.

    Attributes:
      name: sgd, adam, adagrad or yogi.
      learning_rate: > 0.
      momentum: in [0, 1), for sgd; 0 for the others, which have their own.
    """

    name: Literal["sgd", "adam", "adagrad", "yogi"]
    learning_rate: float
    momentum: float


@dataclass(frozen=True, kw_only=True)
class AlgorithmSpec:
    """The algorithm. Weights, data, cohorts and rounds come later.

    Attributes:
      spec: the architecture.
      client: optimizer of the local steps.
      server: optimizer of the rounds; its gradient is the negative average delta.
      proximal_strength: FedProx's mu, >= 0.
      average: how clients count in the mean (by their examples, or equally), or the noise of the private aggregation.
      bounds: bounds of secure aggregation without privacy; None sums in the clear.
    """

    spec: ModelSpec
    client: OptimizerConfig
    server: OptimizerConfig
    proximal_strength: float
    average: Literal["examples", "uniform"] | Noise
    bounds: SumBounds | None = None

    @property
    def specs(self) -> tuple[Any, ...]:
        """What a client sends of its delta, as tf.TensorSpec."""
        return tuple(tf.TensorSpec(shape, tf.float32) for shape in self.spec.weight_shapes())

    @classmethod
    def of(
        cls,
        settings: FederatedConfig,
        spec: ModelSpec,
        average: Literal["examples", "uniform"] | Noise,
        bounds: SumBounds | None = None,
    ) -> "AlgorithmSpec":
        """Builds the algorithm that the settings describe."""
        client = OptimizerConfig(
            name=settings.client_optimizer,
            learning_rate=settings.client_learning_rate,
            momentum=settings.client_momentum,
        )
        server = OptimizerConfig(
            name=settings.server_optimizer,
            learning_rate=settings.server_learning_rate,
            momentum=settings.server_momentum,
        )
        return cls(
            spec=spec,
            client=client,
            server=server,
            proximal_strength=settings.proximal_strength,
            average=average,
            bounds=bounds,
        )


@dataclass(frozen=True, kw_only=True)
class LocalWork:
    """What one client does in one round.

    Attributes:
      batch_size: examples of one local step; the last batch of an epoch may be smaller.
      epochs: passes over its examples, all in the same order.
      unrolled: local steps that the graph unrolls; further ones go through a loop.
      loops: whether a client may take more steps than `unrolled`.
    """

    batch_size: int
    epochs: int
    unrolled: int
    loops: bool

    @classmethod
    def of(cls, *, batch_size: int, epochs: int, largest: int) -> "LocalWork":
        """Plans a graph for clients of up to `largest` examples; powers of two let several partitions share it."""
        steps = epochs * ceil(largest / batch_size)
        unrolled = min(UNROLLED_STEPS, 1 << (steps - 1).bit_length())
        return cls(batch_size=batch_size, epochs=epochs, unrolled=unrolled, loops=steps > unrolled)
