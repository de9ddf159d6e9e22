"""A problem on which every unit is a canary, trained by the product's own engine.

A linear model of two classes has one input feature a unit. Unit i's input is zero but for a large number at feature i.
Whatever the weights are, its clipped contribution then is the clip norm along (1, -1) / sqrt(2) on row i, towards its
label. Nothing but noise ever moves that row besides, and nothing but noise moves any row, or the bias, along
(1, 1) / sqrt(2). Learning rates are too small for the weights to matter.

The run is repeated with inputs of zero. Noise and samples come from one seed, drawn from the operating system and known
to the audit alone, so the difference of both runs is what units contributed, free of noise: who joined is measured.
"""

import secrets
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

import numpy as np
from numpy.typing import NDArray

from pipelines.config import Config, DpSgdConfig
from pipelines.job import build_pipeline
from pipelines.model.spec import build_spec
from pipelines.partition.partition import Partition
from pipelines.pipeline import RoundRecord, TrainingData
from pipelines.privacy.plan import MechanismPlan, PrivacyUnit

Floats = NDArray[np.float64]
SHIFT = 1e-9
"""What one clipped contribution moves a weight by."""
INPUT = 1e3
"""Large beside the bias' constant 1 and beside any clip norm."""
LEAST_OBSERVATIONS, MOST_OBSERVATIONS = 5000, 40_000
RESOLUTION = 28
"""Contributions to observe, the size of the smaller arm, are (28 sigma)^2 within these limits: the bound on 1 / sigma
then lies about a fifth below it, however large the noise."""
SAMPLE, LEAST_UNITS, MOST_UNITS = 50, 500, 2000
LEAST_STEPS, MOST_STEPS = 8, 1000
PHYSICAL_BATCHES = 3
LOCAL_BATCH = 2
SEED_BITS = 128


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The size of the problem.

    Attributes:
      plan: the run's clip norm, noise and sampling probability, for as many units as the problem has.
      rows: input features, of which the first `plan.population` belong to a unit each and the others to nobody.
    """

    plan: MechanismPlan
    rows: int

    @classmethod
    def of(cls, plan: MechanismPlan, observations: int | None = None) -> "Probe":
        """Sizes the problem for a plan: units so that samples are not tiny, steps so that enough of them join.

        Args:
          plan: of the run.
          observations: contributions to observe; None takes as many as a tight bound needs.
        """
        q, sigma = plan.sampling_probability, plan.update_noise_multiplier
        if observations is None:
            observations = min(max(LEAST_OBSERVATIONS, ceil((RESOLUTION * sigma) ** 2)), MOST_OBSERVATIONS)
        units = min(max(LEAST_UNITS, ceil(SAMPLE / q)), MOST_UNITS)
        steps = min(max(LEAST_STEPS, ceil(observations / (units * q))), MOST_STEPS)
        own = replace(
            plan,
            population=units,
            steps=steps,
            delta=min(plan.delta, 0.5 / units),  # no engine reads it
            noise_multiplier=sigma,
            adaptive=None,
        )
        # Where most units join, rows of nobody show what a step looks like without one.
        return cls(plan=own, rows=units if q <= 0.5 else 2 * units)

    @cached_property
    def signs(self) -> Floats:
        """Direction of each row's contribution, (rows,): 1 for label 0, -1 for label 1."""
        return 1.0 - 2.0 * (np.arange(self.rows) % 2)

    def lasting(self, steps: int) -> "Probe":
        """Returns this problem over another number of steps."""
        return replace(self, plan=replace(self.plan, steps=steps))

    def data(self, *, units: int, silent: bool) -> TrainingData:
        """The training data of the first `units` units; silent ones have inputs of zero.

        Users have one to three examples each, so that it shows whether their number weighs.
        """
        users = self.plan.unit is PrivacyUnit.USER
        owners = np.repeat(np.arange(units), 1 + np.arange(units) % 3 if users else 1)
        inputs = np.zeros((len(owners), self.rows), np.float32)
        if not silent:
            inputs[np.arange(len(owners)), owners] = INPUT * max(1.0, self.plan.clip_norm)
        spec = build_spec("linear", features=(self.rows,), classes=2)
        return TrainingData(
            inputs=inputs,
            labels=(owners % 2).astype(np.int64),
            partition=Partition.from_owners(owners, units) if users else None,
            spec=spec,
            initial_weights=[np.zeros(shape, np.float32) for shape in spec.weight_shapes()],
        )

    def run(self, config: Config, threads: int, *, units: int, silent: bool, seed: int) -> "Moves":
        """Trains with the engine that `config` names and returns what every step did to the weights.

        Args:
          config: of the run that is audited; sizes and rates are the probe's own.
          threads: CPU threads.
          units: that are there, at most `plan.population`.
          silent: whether their inputs are zero.
          seed: of noise and samples.
        """
        plan = self.plan
        central = isinstance(config.pipeline, DpSgdConfig)  # its operations here are too small to be shared
        pipeline = build_pipeline(probing(config, plan, seed), plan, 1 if central else threads)
        before = np.zeros((self.rows + 1, 2))
        towards, across = [], []

        def keep(record: RoundRecord) -> None:
            nonlocal before
            now = np.vstack(record.model.weights()).astype(np.float64)
            move, before = (now - before) / SHIFT / np.sqrt(2), now
            towards.append((move[:-1, 0] - move[:-1, 1]) * self.signs)
            across.append(move.sum(axis=1))

        pipeline.fit(self.data(units=units, silent=silent), keep)
        return Moves(towards=np.array(towards), across=np.array(across))


@dataclass(frozen=True)
class Moves:
    """What steps did to the weights, in clip norms before the division by the normaliser.

    Attributes:
      towards: along each row's contribution, (steps, rows).
      across: along (1, 1) / sqrt(2), which no contribution touches, (steps, rows + 1); the last is the bias.
    """

    towards: Floats
    across: Floats


def probing(config: Config, plan: MechanismPlan, seed: int) -> Config:
    """The run's configuration with plain, tiny steps: whatever comes before clipping and after noise is not audited.

    The engine, its way to clipped sums, and the device stay.
    """
    pipeline = config.pipeline
    rate = SHIFT * plan.normaliser / plan.clip_norm
    changes: dict[str, object]
    if isinstance(pipeline, DpSgdConfig):
        part = max(1, ceil(plan.normaliser / PHYSICAL_BATCHES))  # noise is added once, however many of them
        changes = {
            "optimizer": "sgd", "learning_rate": rate, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant",
            "max_physical_batch": part, "local_batch_size": LOCAL_BATCH, "local_learning_rate": 1.0,
            "ema_decay": 0.0,
        }  # fmt: skip
    else:
        changes = {
            "local_batch_size": LOCAL_BATCH, "client_optimizer": "sgd", "client_learning_rate": 1.0,
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
    """A seed that nobody else knows; never logged."""
    return secrets.randbits(SEED_BITS)
