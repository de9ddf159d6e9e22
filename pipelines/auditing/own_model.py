"""The run's own model, trained by its own engine on canaries, to measure contributions and noise on every weight.

Canaries are made-up examples. The lengths of their gradients span several orders of magnitude, and one canary has zero
inputs. Their classes start with very different odds, so that the model already predicts some of them.

- A *twin* run has a few steps on these canaries. It is repeated with the same seed, with NaN in every canary. An engine
  leaves out units that are not finite, so the second run contains only the noise. The difference of both runs must be
  the canaries' own contributions, each clipped as a whole, and nothing else. They are compared with gradients of one
  example at a time, by the framework's autograd, at the exact weights from which each step started.
- A *crowded* twin has many copies of each canary. Its steps are as large as those of real runs, and are computed in the
  run's own parts.
- A *still* run has many steps and no contributions. It shows the noise on each tensor.

All use their own sizes, rates and clip norm, so that float32 resolves them for every plan. The still run keeps the
plan's noise multiplier. A twin's noise is at most as large as a contribution.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, prod

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr

from pipelines.auditing.finding import AuditError
from pipelines.auditing.probe import LARGEST_TREE, STILL, probing
from pipelines.config.schema import Config
from pipelines.core.errors import DivergedError
from pipelines.core.randomness import public_stream
from pipelines.data.partition.division import Partition
from pipelines.engines.build import build_pipeline
from pipelines.engines.interface import FittedModel, RoundRecord, TrainingData
from pipelines.model.spec import ModelSpec, Weights
from pipelines.privacy.mechanisms.base import AdaptiveClipping, Mechanism, PrivacyUnit

Floats = NDArray[np.float64]
CANDIDATES, UNITS = 36, 18
SCALES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
ODDS = 200.0
"""Initial odds of the last class against all others in twins: an example of the expected class has a short gradient."""
APART = 0.2
"""Least length of the part of a canary's direction that the directions of earlier canaries do not explain."""
LEARNED = 1e-3
"""Canaries are not used if their gradient is shorter than this share of the gradient of the canary with zero inputs:
float32 resolves too few of its digits."""
MOST_EXAMPLES = 3
"""Largest number of examples of one user."""
POISON = 4
"""Number of units whose gradient is never finite. An engine must leave out exactly these."""
JOIN = 0.5
TWIN_STEPS, TWIN_TREE = 8, 6
WALK = 0.05
"""Distance that a twin's noise moves a weight in all steps: large for float32's rounding, small for the model."""
MOST_TWIN_NOISE = 1.0
CUT = 0.5
"""A twin's clip norm, as a share of the length of the gradient with zero inputs, or of the median length if shorter."""
STILL_DRAWS, LEAST_STILL, MOST_STILL = 3_000_000, 16, 96
STILL_MOVE = 1e-2
"""Distance that the noise of a still run moves a weight in one step."""
RATE = 0.5
"""Learning rate of a twin's adaptive clip norm; the norm falls by a factor of 2 or more."""


@dataclass(frozen=True)
class Path:
    """The weights of a run, step by step.

    Attributes:
      weights: all weights before the first step and after each step, (steps + 1, weights).
      drawn: whether the run's own record has each unit in each step, (steps, units).
      model: the final model.
    """

    weights: Floats
    drawn: NDArray[np.bool_]
    model: FittedModel


@dataclass(frozen=True, kw_only=True)
class OwnModel:
    """A model and the canaries for it.

    Attributes:
      config: of the run; its engine, its method for clipped sums and its device stay.
      plan: of the run.
      spec: of the run's model.
      threads: CPU threads.
    """

    config: Config
    plan: Mechanism
    spec: ModelSpec
    threads: int

    @cached_property
    def by_user(self) -> bool:
        """Whether a unit is a user, with one to three examples."""
        return self.plan.unit is PrivacyUnit.USER

    @cached_property
    def start(self) -> Weights:
        """Initial weights of twins: Glorot kernels, small biases, and odds of the classes."""
        rng, weights = public_stream(0, "audit_weights"), []
        for shape in self.spec.weight_shapes():
            limit = np.sqrt(6 / (prod(shape[:-2]) * sum(shape[-2:]))) if len(shape) > 1 else WALK
            weights.append(rng.uniform(-limit, limit, shape).astype(np.float32))
        weights[-1] = np.zeros(self.spec.classes, np.float32)
        weights[-1][-1] = np.log(ODDS * (self.spec.classes - 1))
        return weights

    @cached_property
    def owners(self) -> NDArray[np.int64]:
        """The candidate to which each candidate example belongs."""
        units = np.arange(CANDIDATES)
        return np.repeat(units, 1 + units % MOST_EXAMPLES if self.by_user else 1)

    @cached_property
    def candidates(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Inputs and labels of all candidate examples; the first candidate's inputs are zero."""
        rng, owners = public_stream(0, "audit_canaries"), self.owners
        inputs = rng.standard_normal((len(owners), *self.spec.features))
        scales = np.where(owners == 0, 0.0, np.array(SCALES)[owners % len(SCALES)])
        inputs *= scales.reshape(-1, *[1] * len(self.spec.features))
        return inputs.astype(np.float32), (owners // len(SCALES) + owners) % self.spec.classes

    def gradients(self, model: FittedModel, weights: Weights, chosen: NDArray[np.int64]) -> Floats:
        """Contribution of each chosen candidate before clipping, the mean over its examples, (chosen, weights)."""
        mine = np.isin(self.owners, chosen)
        inputs, labels = self.candidates
        each = model.example_gradients(weights, inputs[mine], labels[mine])
        _, place = np.unique(self.owners[mine], return_inverse=True)
        share = np.zeros((len(chosen), len(each)))
        share[place, np.arange(len(each))] = 1 / np.bincount(place)[place]
        return share @ each

    def choose(self, model: FittedModel) -> tuple[NDArray[np.int64], float]:
        """Picks canaries with very different directions, and a clip norm that clips most but not all of them.

        It clips the canary with zero inputs, whose gradient is that of biases. An engine that forgets biases would not.
        """
        gradients = self.gradients(model, self.start, np.arange(CANDIDATES))
        lengths = np.linalg.norm(gradients, axis=1)
        directions = np.where(lengths >= LEARNED * lengths[0], 1 / np.maximum(lengths, 1e-30), 0)[:, None] * gradients
        directions[0] *= 2  # so that the canary with zero inputs comes first
        _, sizes, order = qr(directions.T, mode="economic", pivoting=True)
        apart = np.abs(np.diag(sizes)) >= APART
        chosen = np.sort(order[: len(apart)][apart][: min(UNITS, max(1, gradients.shape[1] // 4))])
        return chosen, CUT * float(min(lengths[0], np.median(lengths[chosen])))

    def data(self, chosen: NDArray[np.int64], *, without_units: bool, start: Weights, copies: int = 1) -> TrainingData:
        """The chosen canaries, each `copies` times, or as many examples of NaN; then `POISON` units of NaN."""
        mine = np.isin(self.owners, chosen)
        inputs, labels = (np.concatenate([part[mine]] * copies) for part in self.candidates)
        _, owners = np.unique(self.owners[mine], return_inverse=True)
        units = copies * len(chosen)
        owners = np.concatenate([*(owners + k * len(chosen) for k in range(copies)), units + np.arange(POISON)])
        inputs = np.concatenate([inputs, np.zeros((POISON, *inputs.shape[1:]), np.float32)])
        inputs[slice(None) if without_units else slice(-POISON, None)] = np.nan
        return TrainingData(
            inputs=inputs,
            labels=np.concatenate([labels, np.zeros(POISON, np.int64)]),
            partition=Partition.from_owners(owners, units + POISON) if self.by_user else None,
            spec=self.spec,
            initial_weights=[value.copy() for value in start],
        )

    def run(self, data: TrainingData, plan: Mechanism, *, move: float, seed: int | None) -> "Path":
        """Trains, and returns the weights of every step.

        Args:
          data: of this problem.
          plan: for these units.
          move: distance that a contribution of one clip norm moves the weights.
          seed: of noise and samples; None draws them as in a real run.

        Raises:
          AuditError: a weight is not finite.
        """
        rate = move * plan.expected_batch_size / plan.clip_norm
        config = probing(
            self.config, plan, seed, rate=rate, local_batch=MOST_EXAMPLES, parts=plan.population <= UNITS + POISON + 1
        )
        weights, drawn = [_flat(data.initial_weights)], []

        def keep(record: RoundRecord) -> None:
            weights.append(_flat(record.model.weights()))
            assert record.sampler is not None, "every private engine has one"
            drawn.append(record.sampler.latest)

        try:
            fit = build_pipeline(config, plan, self.threads).fit(data, keep)
        except DivergedError as error:
            raise AuditError(
                "audit=mechanism REFUTES THIS RUN: a contribution that is not finite reaches the weights, so it is not "
                "bounded; do not release its model"
            ) from error
        return Path(np.array(weights), np.array(drawn), fit.record.model)

    def still_plan(self) -> Mechanism:
        """The plan of the still run: many steps with the run's noise."""
        steps = min(max(LEAST_STILL, ceil(STILL_DRAWS / self.spec.parameters)), MOST_STILL)
        plan = _on_canaries(self.plan, CANDIDATES + POISON, LARGEST_TREE, steps)
        return plan if plan.adaptive is None else replace(plan, adaptive=replace(plan.adaptive, learning_rate=STILL))

    def twin_plan(self, units: int, clip_norm: float, steps: int = TWIN_STEPS, rate: float = RATE) -> Mechanism:
        """The plan of a twin: a few steps with little noise; an adaptive clip norm has learning rate `rate`."""
        own = _on_canaries(self.plan, units + POISON, TWIN_TREE, steps)
        adaptive = None if own.adaptive is None else replace(own.adaptive, learning_rate=rate)
        sigma = min(self.plan.update_noise_multiplier, MOST_TWIN_NOISE)
        return replace(own, clip_norm=clip_norm).with_update_noise(sigma, adaptive)


def twin_move(plan: Mechanism) -> float:
    """Distance that a contribution of one clip norm moves a twin's weights."""
    return WALK / (max(plan.update_noise_multiplier, 1.0) * plan.steps**0.5)


def still_move(plan: Mechanism) -> float:
    """The same for a still run; its noise always has the same size."""
    return STILL_MOVE / plan.update_noise_multiplier


def _flat(weights: Weights) -> Floats:
    return np.concatenate([np.ravel(value) for value in weights]).astype(np.float64)


def _on_canaries(plan: Mechanism, units: int, longest: int, steps: int) -> Mechanism:
    """The plan for a few units, with its noise on updates; the noise on a count is limited to fit them."""
    own = plan.among(units, steps, join=JOIN, longest=longest)
    if own.adaptive is None:
        return own
    stddev = min(own.adaptive.count_stddev, own.expected_batch_size / 4)
    adaptive = AdaptiveClipping(target_quantile=0.0, learning_rate=RATE, count_stddev=stddev)
    return own.with_update_noise(plan.update_noise_multiplier, adaptive)
