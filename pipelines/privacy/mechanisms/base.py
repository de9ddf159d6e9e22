"""The interface of every private mechanism: one object drives both training and accounting.

A mechanism knows which units join each step, what noise a step adds, how much one unit's participation reveals, and
the words for it. Engines, accountants, audits and the statement use this interface. They never test its type.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from pipelines.core.errors import UserError
from pipelines.privacy.rounding import rounded_down, rounded_up
from pipelines.privacy.sampling import Participation, Sampler

Floats = NDArray[np.float64]


class PrivacyUnit(StrEnum):
    """Whose participation the guarantee hides."""

    EXAMPLE = "example"
    USER = "user"


class NeighboringRelation(StrEnum):
    """Which datasets count as neighbours; the names are those of dp-accounting.

    `REPLACE_SPECIAL` replaces one unit's contributions by zeros ("zero-out"); the unit keeps its place.
    """

    ADD_OR_REMOVE_ONE = "add_or_remove_one"
    REPLACE_SPECIAL = "zero_out_one"


@dataclass(frozen=True, kw_only=True)
class AdaptiveClipping:
    """A clip norm that follows a private quantile of the update norms.

    Attributes:
      target_quantile: share of updates that stay unclipped, in [0, 1].
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


@dataclass(frozen=True, kw_only=True)
class Composition:
    """A mechanism as one unit sees it: a composition of equal Poisson-subsampled Gaussian mechanisms.

    Attributes:
      noise_multiplier: sigma of each, >= 0; without noise there is no finite epsilon.
      sampling_probability: q of each, in (0, 1].
      steps: their number, >= 0.
    """

    noise_multiplier: float
    sampling_probability: float
    steps: int


@dataclass(frozen=True, kw_only=True)
class ProblemSize:
    """Limits on the size of an audit's own problem.

    Attributes:
      observations: contributions to observe.
      sample: units that usually join a step.
      least_units, most_units: of the problem.
      least_steps, most_steps: of its run.
      longest: rounds of the longest group of steps whose noise is correlated.
      rare: accepted probability that some unit joins every step by chance; it gives the least number of steps.
    """

    observations: int
    sample: int
    least_units: int
    most_units: int
    least_steps: int
    most_steps: int
    longest: int
    rare: float


class Mechanism(Protocol):
    """What a private run does to its units.

    Attributes:
      name: of the kind of mechanism, as in privacy.json and in the log.
      SCHEDULE: keys of the schedule in privacy.json besides `name` and sampler, with the kind of each value.
      unit: who is protected.
      relation: which datasets are neighbours.
      population: public number of units.
      steps: planned steps, or the steps that ran.
      noise_multiplier: sigma, >= 0, in units of the clip norm.
      clip_norm: > 0; the initial one under adaptive clipping.
      delta: in (0, 1/population).
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    name: ClassVar[str]
    SCHEDULE: ClassVar[Mapping[str, str]]

    def __hash__(self) -> int:
        """Mechanisms are keys of caches."""

    @property
    def unit(self) -> PrivacyUnit:
        """Who is protected."""

    @property
    def relation(self) -> NeighboringRelation:
        """Which datasets are neighbours."""

    @property
    def population(self) -> int:
        """Public number of units; never derived from the units that are really in the data."""

    @property
    def steps(self) -> int:
        """Planned steps, or the steps that ran."""

    @property
    def noise_multiplier(self) -> float:
        """Sigma, >= 0."""

    @property
    def clip_norm(self) -> float:
        """L2 bound of one unit's contribution to a step."""

    @property
    def delta(self) -> float:
        """The probability that the bound adds to the factor e^epsilon."""

    @property
    def adaptive(self) -> AdaptiveClipping | None:
        """How the clip norm moves; None if it is fixed."""

    @property
    def expected_batch_size(self) -> float:
        """The public constant by which sums are divided."""

    @property
    def update_noise_multiplier(self) -> float:
        """Noise multiplier of each independent draw of noise on updates, without the noise on counts."""

    @property
    def effective_noise_multiplier(self) -> float:
        """Noise multiplier of all noise of one step, as a single Gaussian mechanism on one unit."""

    @property
    def coefficients(self) -> tuple[float, ...]:
        """First column of the banded Toeplitz matrix C: noise of the steps is C^-1 times independent draws."""

    @property
    def restart_every(self) -> int | None:
        """Number of steps whose noise comes from one tree; None if there are no trees."""

    @property
    def composition(self) -> Composition | None:
        """The equivalent composition of subsampled Gaussians for one unit; None if there is none."""

    @property
    def label(self) -> str:
        """Name of the mechanism in a run's name; empty for the usual one."""

    @property
    def law(self) -> str:
        """The law of participation that the accounting assumes: a clause without a full stop."""

    @property
    def schedule_in_words(self) -> str:
        """The numbers of the schedule, for one line."""

    def executed(self, steps: int) -> Self:
        """Returns this mechanism with the steps that really ran.

        Raises:
          UserError: more steps than planned, or a negative number.
        """

    def with_noise(self, sigma: float) -> Self:
        """Returns this mechanism with another noise multiplier."""

    def with_update_noise(self, sigma: float, adaptive: AdaptiveClipping | None = None) -> Self:
        """Returns this mechanism with a noise multiplier for which updates have `sigma`.

        Args:
          sigma: noise multiplier of updates.
          adaptive: replaces the adaptive clipping of a mechanism that has one; None keeps it.
        """

    def dp_event(self) -> Any:
        """The mechanism as a `dp_accounting.DpEvent`."""

    def epsilon(self) -> float:
        """Epsilon at its delta, by the accountant of the guarantee; 0 for zero steps.

        Raises:
          UserError: the mechanism adds no noise.
        """

    def quick_epsilon(self) -> float:
        """The same epsilon up to rounding, but fast: for searches and progress, never for a guarantee."""

    def lower_bound(self, mu: float) -> float:
        """Epsilon if a contribution is at least `mu` standard deviations of one draw of noise; 0 for mu <= 0."""

    def cohort_size(self, units: int) -> float:
        """Expected number of units that join a step if `units` are present."""

    def sampler(self, units: int, rng: np.random.Generator) -> Sampler:
        """Draws the units that join each step.

        Args:
          units: number of units present.
          rng: the run's private stream.
        """

    def participation(self, units: int) -> Participation:
        """A record that checks a run against the law of `sampler`."""

    def participation_faults(self, joined: NDArray[np.bool_], level: float) -> list[str]:
        """Differences between observed participation and the law.

        Args:
          joined: (steps, units).
          level: false alarm rate of each test.
        """

    def whitened(self, noise: Floats) -> Floats:
        """Turns the noise of the steps, (steps, coordinates), into as many independent draws of the update's noise."""

    def resized(self, size: ProblemSize) -> Self:
        """The same kind of mechanism for an audit's linear problem; noise and clip norm stay."""

    def among(self, units: int, steps: int, *, join: float, longest: int) -> Self:
        """The same kind of mechanism for a few units.

        Args:
          units: of the problem; they are its population.
          steps: of its run.
          join: share of units that joins a step; a mechanism may use more.
          longest: as in `ProblemSize`.
        """

    def how(self) -> str:
        """The paragraph of the statement on what was done."""

    def participation_assumption(self, *, judged: bool) -> str:
        """The sentences of the statement on participation.

        Args:
          judged: whether the record of the run was tested against the law.
        """

    def remark(self) -> str | None:
        """One line of advice if the mechanism is valid but hardly sensible; None otherwise."""

    def schedule(self) -> dict[str, Any]:
        """The schedule in privacy.json: mechanism, sampler, and the keys of `SCHEDULE`."""

    @classmethod
    def from_schedule(cls, values: Mapping[str, Any], common: Mapping[str, Any]) -> Self:
        """Reads what `schedule` wrote.

        Args:
          values: of privacy.json.
          common: the fields that all mechanisms share, with the right types.
        """

    @classmethod
    def logged_schedule(cls, sample: float, population: float, params: Mapping[str, str]) -> dict[str, float]:
        """The numbers of `schedule` that follow from a logged configuration.

        Args:
          sample: expected number of units in a step.
          population: public number of units.
          params: of the run, as logged.
        """


ROUND_OFF, OWN_STEPS = 2.0**-52, 1000
"""Rounding error of delta in the transforms of the PLD accountant: error per step, and a number of steps to add.

Each transform rounds probabilities that add up to 1. The power of its spectrum multiplies the error by the number of
steps. Among some hundred plans of up to two million steps, the largest error against the exact value was a third of
this bound.
"""


def delta_round_off(steps: int) -> float:
    """Bound on the error of a delta that is computed for that many steps, of one or several mechanisms."""
    return (steps + OWN_STEPS) * ROUND_OFF


def least_delta(steps: int) -> float:
    """Smallest delta that the PLD accountant resolves: twice its rounding error."""
    return 2 * delta_round_off(steps)


def require_delta(delta: float, population: int, unit: PrivacyUnit) -> None:
    """Refuses a delta that would allow a mechanism to publish one unit in full.

    Raises:
      UserError: not in (0, 1/population).
    """
    if not 0 < delta < 1 / population:
        raise UserError(
            f"privacy.delta={delta:g} must lie in (0, {rounded_down(1 / population, 3)}), that is below "
            f"1/population for {population} {unit}s; choose a smaller delta"
        )


def require_resolved_delta(delta: float, steps: int) -> None:
    """Refuses a delta that the rounding of the PLD accountant would hide.

    Raises:
      UserError: below `least_delta`.
    """
    if delta < least_delta(steps):
        raise UserError(
            f"privacy.delta={delta:g} is lost in the rounding of {steps:,} steps; choose "
            f"{rounded_up(least_delta(steps), 2)} or more, or fewer steps"
        )


def require_noise(noise_multiplier: float) -> None:
    """Refuses to account for a mechanism without noise.

    Raises:
      UserError: it has none.
    """
    if noise_multiplier == 0:
        raise UserError("privacy.noise_multiplier=0 gives no finite epsilon; give a positive value")


def require_sizes(noise_multiplier: float, clip_norm: float) -> None:
    """Refuses noise or a clip norm out of range.

    Raises:
      UserError: negative noise, or a clip norm that is not positive.
    """
    if noise_multiplier < 0 or clip_norm <= 0:
        raise UserError(
            f"mechanism plan: noise_multiplier={noise_multiplier:g} must be >= 0 and clip_norm={clip_norm:g} > 0"
        )


def require_poisson(
    relation: NeighboringRelation, population: int, steps: int, q: float, *, within: str = "", remedy: str
) -> None:
    """Refuses values that no mechanism on Poisson samples has.

    Args:
      relation: which datasets are neighbours.
      population: public number of units.
      steps: that run.
      q: sampling probability.
      within: what it is the probability within, with a space before it; empty for the population.
      remedy: what to lower if it is above 1.

    Raises:
      UserError: a value out of range.
    """
    if relation is not NeighboringRelation.ADD_OR_REMOVE_ONE:
        raise UserError(
            f"mechanism plan: relation={relation} is only for trees; Poisson sampling needs add_or_remove_one"
        )
    if population < 1 or steps < 0:
        raise UserError(f"mechanism plan: population={population} and steps={steps} must be positive")
    if not 0 < q <= 1:
        raise UserError(
            f"mechanism plan: the sampling probability{within} is {q:g}; it must lie in (0, 1]: lower {remedy}"
        )


def require_planned(steps: int, planned: int) -> None:
    """Refuses executed steps that a plan does not have.

    Raises:
      UserError: more than planned, or a negative number.
    """
    if not 0 <= steps <= planned:
        raise UserError(f"mechanism plan: {steps} executed steps do not fit the {planned} planned")


LEAST_NOISE, MOST_NOISE = 0.1, 1000.0
"""Limits in an audit's bounds: a smaller noise multiplier counts as the least one, whose epsilon is useless anyway;
a larger one counts as epsilon 0."""


def epsilon_at_noise(mechanism: Mechanism, sigma: float) -> float:
    """Epsilon of a mechanism with another noise multiplier and a fixed clip norm, up to rounding.

    Args:
      mechanism: its own noise and adaptive clipping are ignored.
      sigma: > 0; it may be infinite.
    """
    if sigma > MOST_NOISE:
        return 0.0
    plain = mechanism if mechanism.adaptive is None else replace(mechanism, adaptive=None)
    return plain.with_noise(max(sigma, LEAST_NOISE)).quick_epsilon()


def resized_delta(delta: float, units: int) -> float:
    """A delta that is valid for a smaller population; no engine reads it."""
    return min(delta, 0.5 / units)
