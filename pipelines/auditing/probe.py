"""A problem on which every unit is a canary, trained by the product's own engine.

A linear model of two classes has one input feature per unit. Unit i's input is zero except for a large number at
feature i. For any weights, its clipped contribution is the clip norm along (1, -1) / sqrt(2) on row i, towards its
label. Apart from this unit, only noise moves that row. Along (1, 1) / sqrt(2) only noise moves any row, or the bias.
Learning rates are so small that the weights do not matter.

The run is repeated with all inputs on one spare feature, the last. Noise and samples come from one seed, which is drawn
from the operating system and known only to the audit. The difference of both runs is therefore the contribution of each
unit to its row, without noise. It shows which units joined.

Under adaptive clipping every other pair of units is small, so that clipping does not change half of the units. Then the
noised count that moves the clip norm lies far from its limits.
"""

import secrets
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

import numpy as np
from numpy.typing import NDArray

from pipelines.config.pipeline_settings import DpSgdUsersConfig, PrivateCentralConfig
from pipelines.config.schema import Config
from pipelines.data.partition.division import Partition
from pipelines.engines.build import build_pipeline
from pipelines.engines.interface import RoundRecord, TrainingData
from pipelines.model.spec import build_spec
from pipelines.privacy.mechanisms.base import AdaptiveClipping, Mechanism, PrivacyUnit, ProblemSize

Floats = NDArray[np.float64]
SHIFT = 1e-9
"""Distance that one clipped contribution moves a weight, or the noise if that is larger."""
INPUT = 1e3
"""Input of a unit: large compared with the bias' constant 1 and with the clip norm."""
LARGEST_CLIP = 1.0
"""Largest clip norm of the problem. A larger clip norm of the plan is replaced: engines scale with it, float32 does
not."""
LEAST_NOISE, MOST_NOISE = 1e-3, 1e3
"""Range of noise multipliers for which float32 resolves both the noise and a contribution."""
LEAST_OBSERVATIONS, MOST_OBSERVATIONS = 5000, 40_000
RESOLUTION = 28
"""The number of contributions to observe is (28 sigma)^2, within these limits. Then the lower bound on 1 / sigma is
about a fifth too low, for any noise."""
SAMPLE, LEAST_UNITS, MOST_UNITS = 50, 500, 2000
LEAST_STEPS, MOST_STEPS = 8, 1000
ALWAYS = 1e-8
"""Accepted probability that some unit joins every step by chance; it gives the least number of steps."""
PHYSICAL_BATCHES = 3
LOCAL_BATCH = 2
SEED_BITS = 128
LEAST_ADAPTIVE_UNITS, LEAST_COUNTS = 100, 120
"""Adaptive clipping: each step shows the noise on the count once; the chi-square test needs many to detect half of
it."""
ROOM, SMALL = 8.0, 0.125
"""Adaptive clipping: clip norm, and the input of a small unit as a share of it. The contribution of a small unit is an
eighth to three eighths of the clip norm."""
CALM, COUNT_NOISE, STILL = 0.02, 0.05, 1e-6
"""Adaptive clipping: learning rate of the clip norm, slow enough to keep these sizes; largest noise on the count, as a
share of the sample; and a learning rate that is almost zero."""
LARGEST_TREE = 32


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The size of the problem.

    Attributes:
      plan: the run's noise, clip norm and participation, for the units of the problem.
      rows: number of input features; each of the first `plan.population` belongs to one unit, the others to none.
    """

    plan: Mechanism
    rows: int

    @classmethod
    def of(cls, plan: Mechanism, observations: int | None = None) -> "Probe":
        """Sizes the problem for a plan: units so that samples are not tiny, and steps so that enough units join.

        Args:
          plan: of the run.
          observations: number of contributions to observe; None takes as many as a tight bound needs.
        """
        if observations is None:
            sigma = plan.update_noise_multiplier
            observations = min(max(LEAST_OBSERVATIONS, ceil((RESOLUTION * sigma) ** 2)), MOST_OBSERVATIONS)
        moves = plan.adaptive is not None
        size = ProblemSize(
            observations=observations * (2 if moves else 1),
            sample=SAMPLE,
            least_units=LEAST_ADAPTIVE_UNITS if moves else LEAST_UNITS,
            most_units=MOST_UNITS,
            least_steps=LEAST_COUNTS if moves else LEAST_STEPS,
            most_steps=MOST_STEPS,
            longest=LARGEST_TREE,
            rare=ALWAYS,
        )
        own = _resolved(plan, plan.resized(size))
        # If most units join, rows without a unit show a step without a contribution.
        few = own.cohort_size(own.population) <= own.population / 2
        return cls(plan=own, rows=own.population if few else 2 * own.population)

    @cached_property
    def signs(self) -> Floats:
        """Direction of each row's contribution, (rows,): 1 for label 0, -1 for label 1."""
        return 1.0 - 2.0 * (np.arange(self.rows) % 2)

    @cached_property
    def adaptive(self) -> AdaptiveClipping | None:
        """How the clip norm moves; None if it is fixed."""
        return self.plan.adaptive

    @cached_property
    def large(self) -> NDArray[np.bool_]:
        """Whether each row belongs to a unit that is clipped, (rows,)."""
        return np.arange(self.rows) % 4 < 2 if self.adaptive else np.ones(self.rows, bool)

    @cached_property
    def shift(self) -> float:
        """Distance that one clipped contribution moves a weight: so small that the logits stay near zero."""
        return SHIFT / max(1.0, self.plan.update_noise_multiplier)

    def lasting(self, steps: int) -> "Probe":
        """Returns this problem with another number of steps, and a clip norm that hardly moves."""
        plan = replace(self.plan, steps=steps)
        if plan.adaptive is not None:
            plan = replace(plan, adaptive=replace(plan.adaptive, learning_rate=STILL))
        return replace(self, plan=plan)

    def data(self, *, units: int, without_units: bool) -> TrainingData:
        """The training data of the first `units` units; `without_units` puts all inputs on the spare feature.

        Users have one to three examples each, to test whether an update depends on their number.
        """
        users = self.plan.unit is PrivacyUnit.USER
        owners = np.repeat(np.arange(units), 1 + np.arange(units) % 3 if users else 1)
        inputs = np.zeros((len(owners), self.rows + 1), np.float32)
        sizes = np.where(self.large[owners], INPUT, SMALL * self.plan.clip_norm)
        inputs[np.arange(len(owners)), self.rows if without_units else owners] = sizes
        spec = build_spec("linear", features=(self.rows + 1,), classes=2)
        return TrainingData(
            inputs=inputs,
            labels=(owners % 2).astype(np.int64),
            partition=Partition.from_owners(owners, units) if users else None,
            spec=spec,
            initial_weights=[np.zeros(shape, np.float32) for shape in spec.weight_shapes()],
        )

    def run(self, config: Config, threads: int, *, units: int, without_units: bool, seed: int) -> "Moves":
        """Trains with the engine that `config` names, and returns the change of the weights in every step.

        Args:
          config: of the audited run; the probe replaces sizes and rates.
          threads: CPU threads.
          units: number of present units, at most `plan.population`.
          without_units: whether all inputs are on the spare feature.
          seed: of noise and samples.
        """
        plan = self.plan
        central = isinstance(config.pipeline, PrivateCentralConfig)  # its operations are too small for several threads
        rate = self.shift * plan.expected_batch_size / plan.clip_norm
        pipeline = build_pipeline(probing(config, plan, seed, rate=rate), plan, 1 if central else threads)
        before = np.zeros((self.rows + 2, 2))
        parallel, orthogonal = [], []

        def keep(record: RoundRecord) -> None:
            nonlocal before
            now = np.vstack(record.model.weights()).astype(np.float64)
            move, before = (now - before) / self.shift / np.sqrt(2), now
            parallel.append((move[: self.rows, 0] - move[: self.rows, 1]) * self.signs)
            orthogonal.append(move.sum(axis=1))

        pipeline.fit(self.data(units=units, without_units=without_units), keep)
        return Moves(parallel=np.array(parallel), orthogonal=np.array(orthogonal))


def resolved_noise(plan: Mechanism) -> float:
    """The noise multiplier of a draw, limited to the range that float32 resolves."""
    return min(max(plan.update_noise_multiplier, LEAST_NOISE), MOST_NOISE)


def _resolved(plan: Mechanism, own: Mechanism) -> Mechanism:
    """The mechanism of a problem with noise and a clip norm that float32 resolves.

    Args:
      plan: of the run.
      own: the same kind of mechanism on the problem.
    """
    if own.adaptive is None:
        return replace(own, clip_norm=min(plan.clip_norm, LARGEST_CLIP)).with_noise(resolved_noise(plan))
    stddev = min(own.adaptive.count_stddev, COUNT_NOISE * own.expected_batch_size)
    calm = AdaptiveClipping(target_quantile=0.5, learning_rate=CALM, count_stddev=stddev)
    return replace(own, clip_norm=ROOM).with_update_noise(resolved_noise(plan), calm)


@dataclass(frozen=True)
class Moves:
    """Changes of the weights in each step, in clip norms before the division by the expected batch size.

    Attributes:
      parallel: along each row's contribution, (steps, rows); without the spare row.
      orthogonal: along (1, 1) / sqrt(2), where no unit contributes, (steps, rows + 2); the last two are the spare row
        and the bias.
    """

    parallel: Floats
    orthogonal: Floats


def probing(
    config: Config,
    plan: Mechanism,
    seed: int | None,
    *,
    rate: float,
    local_batch: int = LOCAL_BATCH,
    parts: bool = True,
) -> Config:
    """The run's configuration with plain steps: the audit does not test what comes before clipping or after noise.

    The engine, its method for clipped sums, and the device stay.

    Args:
      config: of the run.
      plan: the plan to run.
      seed: of noise and samples; None draws them from the operating system's entropy.
      rate: learning rate of the released sums.
      local_batch: number of examples in a user's local step.
      parts: whether to compute even a small step in several parts; otherwise the run's own parts are used.
    """
    pipeline = config.pipeline
    changes: dict[str, object]
    if isinstance(pipeline, PrivateCentralConfig):
        part = pipeline.max_physical_batch
        if parts:
            part = max(1, ceil(plan.expected_batch_size / PHYSICAL_BATCHES))  # the noise is added once for all parts
        changes = {
            "optimizer": "sgd", "learning_rate": rate, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant",
            "max_physical_batch": part, "ema_decay": 0.0,
        }  # fmt: skip
        if isinstance(pipeline, DpSgdUsersConfig):
            changes |= {
                "local_batch_size": local_batch, "local_learning_rate": 1.0, "local_epochs": 1, "user_examples": None,
            }  # fmt: skip
    else:
        changes = {
            "local_batch_size": local_batch, "local_epochs": 1, "client_optimizer": "sgd", "client_learning_rate": 1.0,
            "client_momentum": 0.0, "server_optimizer": "sgd", "server_learning_rate": rate, "server_momentum": 0.0,
            "proximal_strength": 0.0, "ema_decay": 0.0,
        }  # fmt: skip
    return config.model_copy(
        update={
            "pipeline": pipeline.model_copy(update=changes),
            "privacy": config.privacy.model_copy(update={"noise_seed": seed}),
        }
    )


def secret_seed() -> int:
    """A secret seed; it is never logged."""
    return secrets.randbits(SEED_BITS)
