"""What a private run does to its units: the one object that drives training and accounting alike."""

from dataclasses import dataclass, replace
from enum import StrEnum

from pipelines.core.errors import UserError
from pipelines.privacy.rounding import rounded_down, rounded_up


class PrivacyUnit(StrEnum):
    """Whose participation the guarantee hides."""

    EXAMPLE = "example"
    USER = "user"


class NeighboringRelation(StrEnum):
    """Which datasets count as neighbours."""

    ADD_OR_REMOVE_ONE = "add_or_remove_one"
    REPLACE_SPECIAL = "zero_out_one"


@dataclass(frozen=True, kw_only=True)
class AdaptiveClipping:
    """A clip norm that follows a private quantile of the update norms.

    Attributes:
      target_quantile: share of updates left unclipped, in [0, 1].
      learning_rate: of the geometric update of the norm, > 0.
      count_stddev: standard deviation of the noise on the number of unclipped units; each unit moves the centred
        count by 1/2, so its noise multiplier is 2 * count_stddev.

    Source: Andrew et al. 2021, arXiv:1905.03871, algorithm 1 and theorem 1.
    """

    target_quantile: float
    learning_rate: float
    count_stddev: float

    def __post_init__(self) -> None:
        if not 0 <= self.target_quantile <= 1 or self.learning_rate <= 0 or self.count_stddev < 0:
            raise UserError(f"adaptive clipping: {self} needs a quantile in [0, 1], a positive rate and a stddev >= 0")


ROUND_OFF, OWN_STEPS = 2.0**-52, 1000
"""What the transforms of the PLD accountant may get wrong of a delta: so much a step, and as for so many more steps.

Each transform rounds probabilities that add up to 1, and the power of its spectrum multiplies that by the steps. The
worst of some hundred plans of up to two million steps had a third of it, against the exact value.
"""


def delta_round_off(steps: int) -> float:
    """Bound on the error of a delta that is computed for that many steps, of a mechanism or of several."""
    return (steps + OWN_STEPS) * ROUND_OFF


def least_delta(steps: int) -> float:
    """Smallest delta that the PLD accountant can tell from its rounding; twice that."""
    return 2 * delta_round_off(steps)


def require_delta(delta: float, population: int, unit: PrivacyUnit) -> None:
    """Refuses a delta that would allow to publish one unit outright.

    Raises:
      UserError: not in (0, 1/population).
    """
    if not 0 < delta < 1 / population:
        raise UserError(
            f"privacy.delta={delta:g} must lie in (0, {rounded_down(1 / population, 3)}), that is below "
            f"1/population for {population} {unit}s; choose a smaller delta"
        )


@dataclass(frozen=True, kw_only=True)
class PoissonGaussianMechanism:
    """A Poisson-subsampled Gaussian mechanism, composed over steps.

    Each step includes each of `population` units independently with probability `sampling_probability`, clips each
    unit's contribution to `clip_norm` in L2, sums, adds N(0, (noise_multiplier * clip_norm)^2) per coordinate and
    divides by the public constant `expected_batch_size`. A step whose sample is empty still adds noise and still
    counts.

    Attributes:
      unit: who is protected.
      relation: add or remove one unit.
      population: public number of units; never derived from who really is in the data.
      sampling_probability: q, in (0, 1].
      steps: >= 0; 0 only in an executed plan.
      noise_multiplier: sigma, >= 0, of the whole step; under adaptive clipping the effective one, shared between the
        update and the count. Zero means no noise: such a plan has no finite epsilon and is for tests of parity.
      clip_norm: > 0; under adaptive clipping the first one.
      delta: in (0, 1/population).
      adaptive: None where the clip norm is fixed.

    Raises:
      UserError: a value out of range.
    """

    unit: PrivacyUnit
    population: int
    sampling_probability: float
    steps: int
    noise_multiplier: float
    clip_norm: float
    delta: float
    relation: NeighboringRelation = NeighboringRelation.ADD_OR_REMOVE_ONE
    adaptive: AdaptiveClipping | None = None

    def __post_init__(self) -> None:
        if self.relation is not NeighboringRelation.ADD_OR_REMOVE_ONE:
            raise UserError(
                f"mechanism plan: relation={self.relation} is for trees; Poisson samples need add_or_remove_one"
            )
        if self.population < 1 or self.steps < 0:
            raise UserError(f"mechanism plan: population={self.population} and steps={self.steps} must be positive")
        if not 0 < self.sampling_probability <= 1:
            raise UserError(
                f"mechanism plan: the sampling probability is {self.sampling_probability:g}; it must lie in (0, 1]: "
                "lower pipeline.batch_size or pipeline.clients_per_round"
            )
        if self.noise_multiplier < 0 or self.clip_norm <= 0:
            raise UserError(
                f"mechanism plan: noise_multiplier={self.noise_multiplier:g} must be >= 0 and "
                f"clip_norm={self.clip_norm:g} > 0"
            )
        require_delta(self.delta, self.population, self.unit)
        if self.delta < least_delta(self.steps):
            raise UserError(
                f"privacy.delta={self.delta:g} is lost in the rounding of {self.steps:,} steps; choose "
                f"{rounded_up(least_delta(self.steps), 2)} or more, or fewer steps"
            )
        if self.adaptive is not None and self.noise_multiplier >= max(2 * self.adaptive.count_stddev, 1e-12):
            raise UserError(
                f"privacy.count_stddev={self.adaptive.count_stddev:g} must exceed half of the noise multiplier "
                f"{self.noise_multiplier:g}; raise it, pipeline.batch_size or pipeline.clients_per_round"
            )

    @property
    def expected_batch_size(self) -> float:
        """The public constant that sums are divided by: the expected number of sampled units."""
        return self.population * self.sampling_probability

    @property
    def update_noise_multiplier(self) -> float:
        """Noise multiplier on the update alone: z_u with z_u^-2 + (2 count_stddev)^-2 = noise_multiplier^-2."""
        if self.adaptive is None or self.noise_multiplier == 0:
            return self.noise_multiplier
        return float((self.noise_multiplier**-2 - (2 * self.adaptive.count_stddev) ** -2) ** -0.5)

    def executed(self, steps: int) -> "PoissonGaussianMechanism":
        """Returns this plan with the steps that really ran."""
        if not 0 <= steps <= self.steps:
            raise UserError(f"mechanism plan: {steps} executed steps do not fit the {self.steps} planned")
        return replace(self, steps=steps)
