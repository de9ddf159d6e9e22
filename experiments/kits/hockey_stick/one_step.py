"""One private step of an engine as a mechanism: from a dataset to the change of the released weights.

An engine trains at a learning rate so small that the weights hardly move. Each step of a run is then a new draw of the
same mechanism, and the engine is built once for thousands of draws.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray
from omegaconf import OmegaConf

from pipelines.config.pipeline_table import PIPELINES
from pipelines.config.schema import Config, parse
from pipelines.core.paths import REPOSITORY
from pipelines.data.partition.division import Partition
from pipelines.engines.build import build_pipeline
from pipelines.engines.interface import Pipeline, RoundRecord, TrainingData
from pipelines.model.spec import ModelSpec, build_spec, initial_weights
from pipelines.privacy.mechanisms.base import PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism

Floats = NDArray[np.float64]
FEATURES, CLASSES, WIDTHS = 4, 4, (4,)
UNITS, EXAMPLES_OF_A_USER = 4, 2
SAMPLING_PROBABILITY, DELTA = 0.75, 0.15
"""A delta so large that a few thousand draws can detect it; a small one is below the tester's own margin."""
STILL = 1.5e-3
"""Learning rate. A step's noise moves weights of about 0.5 by 5e-6: float32 rounds that to 1 %, and thousands of steps
take them no further than 1e-3, which leaves every gradient as it was."""
CLIP_NORM = 0.01
"""Below the norm of each tensor of each unit's gradient."""
COMMON = (
    "model=mlp", f"model.widths={list(WIDTHS)}", "pipeline.ema_decay=0", "privacy.epsilon=null",
    "privacy.noise_multiplier=1", f"privacy.clip_norm={CLIP_NORM}", "threads=1",
)  # fmt: skip
OVERRIDES = {
    "dp_sgd": (
        "pipeline=dp_sgd", "pipeline.optimizer=sgd", "pipeline.momentum=0", "pipeline.weight_decay=0",
        "pipeline.schedule=constant", f"pipeline.learning_rate={STILL}",
    ),
    "dp_fed_avg": (
        "pipeline=dp_fed_avg", "pipeline.client_optimizer=sgd", "pipeline.client_learning_rate=1",
        "pipeline.server_optimizer=sgd", "pipeline.server_momentum=0", f"pipeline.server_learning_rate={STILL}",
        "pipeline.local_epochs=1", "pipeline.local_batch_size=16", "pipeline.proximal_strength=0",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class OneStep:
    """A mechanism as DP-Auditorium calls it.

    Attributes:
      config: names the engine; its learning rate is `STILL`.
      plan: of one step.
      towards: two directions in the space of all weights, shape (2, weights), on which outputs are projected. They are
        fixed before any draw, so they cost no privacy.
    """

    config: Config
    plan: PoissonGaussianMechanism
    towards: Floats

    @classmethod
    def of(cls, engine: str, data: TrainingData, *, seed: int) -> "OneStep":
        """Sets up a step.

        Args:
          engine: dp_sgd or dp_fed_avg.
          data: whose last unit is to be detected. The directions are its gradient, and its gradient with every tensor
            scaled to the same norm, both without the part along the other units' gradients.
          seed: of samples, noise and orders.
        """
        config = configured(engine, seed)
        plan = PoissonGaussianMechanism(
            unit=PrivacyUnit.USER if PIPELINES[engine].divided else PrivacyUnit.EXAMPLE,
            population=UNITS,
            sampling_probability=SAMPLING_PROBABILITY,
            steps=1,
            noise_multiplier=config.privacy.noise_multiplier or 0.0,
            clip_norm=CLIP_NORM,
            delta=DELTA,
        )
        bare = replace(plan, noise_multiplier=0.0, clip_norm=1e6, sampling_probability=1.0)
        engine_without_noise = build_pipeline(config, bare, 1)
        *others, own = (moves(engine_without_noise, alone(data, k), bare)[0] for k in range(UNITS))
        level = np.concatenate([(part / np.linalg.norm(part)).ravel() for part in shaped(data.spec, own)])
        basis, _ = np.linalg.qr(np.stack(others, axis=1))
        free = [direction - basis @ (basis.T @ direction) for direction in (own, level)]
        return cls(config, plan, np.stack([direction / np.linalg.norm(direction) for direction in free]))

    @property
    def epsilon(self) -> float:
        """Epsilon of one step at the plan's delta, as the project claims it."""
        return self.plan.epsilon()

    def __call__(self, dataset: TrainingData, num_samples: int) -> Floats:
        """Draws the mechanism's output; shape (num_samples, 2), in standard deviations of the noise."""
        plan = replace(self.plan, steps=num_samples)
        found = moves(build_pipeline(self.config, plan, 1), dataset, plan)
        return found @ self.towards.T / (plan.noise_multiplier * plan.clip_norm)


def configured(engine: str, seed: int) -> Config:
    """The configuration of an engine, with a learning rate at which the weights hardly move."""
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        values = compose("config", [*OVERRIDES[engine], *COMMON, f"privacy.noise_seed={seed}"])
    resolved: Any = OmegaConf.to_container(values, resolve=True)
    return parse(resolved)


def moves(pipeline: Pipeline, data: TrainingData, plan: PoissonGaussianMechanism) -> Floats:
    """The noised sum that each step of a run subtracts from the weights; shape (steps, weights)."""
    found = np.empty((plan.steps + 1, data.spec.parameters))

    def keep(record: RoundRecord) -> None:
        found[record.step] = flat(record.model.weights())

    found[0] = flat(data.initial_weights)
    pipeline.fit(data, keep)
    return -np.diff(found, axis=0) * plan.expected_batch_size / STILL


def shaped(spec: ModelSpec, values: Floats) -> list[Floats]:
    """Cuts a flat row of all weights into tensors."""
    return [part.astype(np.float64) for part in spec.shaped(values.astype(np.float32))]


def flat(weights: Any) -> Floats:
    """All weights as a flat row."""
    return np.concatenate([value.ravel() for value in weights]).astype(np.float64)


def neighbours(engine: str, seed: int = 0) -> tuple[TrainingData, TrainingData]:
    """A small dataset, and the same dataset without its last example or its last user."""
    each = EXAMPLES_OF_A_USER if PIPELINES[engine].divided else 1
    rng = np.random.default_rng(seed)
    spec = build_spec("mlp", features=(FEATURES,), classes=CLASSES, widths=WIDTHS)
    users = tuple(np.arange(each * UNITS).reshape(UNITS, each))
    data = TrainingData(
        inputs=rng.normal(size=(each * UNITS, FEATURES)).astype(np.float32),
        labels=np.repeat(np.arange(UNITS) % CLASSES, each),
        partition=Partition(users),
        spec=spec,
        initial_weights=initial_weights(spec, rng),
    )
    return data, _part(data, slice(UNITS - 1))


def alone(data: TrainingData, unit: int) -> TrainingData:
    """One unit of a dataset alone."""
    return _part(data, slice(unit, unit + 1))


def _part(data: TrainingData, units: slice) -> TrainingData:
    assert data.partition is not None
    kept = data.partition.clients[units]
    indices = np.concatenate(kept)
    users = tuple(np.arange(len(indices)).reshape(len(kept), -1))
    return replace(data, inputs=data.inputs[indices], labels=data.labels[indices], partition=Partition(users))
