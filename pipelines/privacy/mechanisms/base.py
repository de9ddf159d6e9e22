"""What every private mechanism is asked: one object drives training and accounting alike.

A mechanism knows who joins each step, what noise a step adds, what one unit's participation amounts to, and how to say
so. Engines, accountants, audits and the statement ask it, and never what kind of mechanism it is.
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


@dataclass(frozen=True, kw_only=True)
class Composition:
    """What a mechanism amounts to for one unit: Poisson-subsampled Gaussian mechanisms, one after the other.

    Attributes:
      noise_multiplier: sigma of each, >= 0; without noise there is no finite epsilon.
      sampling_probability: q of each, in (0, 1].
      steps: how many, >= 0.
    """

    noise_multiplier: float
    sampling_probability: float
    steps: int


@dataclass(frozen=True, kw_only=True)
class ProblemSize:
    """How large an audit's own problem may be.

    Attributes:
      observations: contributions to observe.
      sample: units that usually join a step.
      least_units, most_units: of the problem.
      least_steps, most_steps: of its run.
      longest: rounds of the longest group of steps whose noise is correlated.
      rare: probability with which one of all units joins every step by chance; it bounds the steps from below.
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
      name: of the kind of mechanism, as privacy.json and the log have it.
      SCHEDULE: what privacy.json holds of the schedule besides `name` and sampler: key and kind of its value.
      unit: who is protected.
      relation: which datasets are neighbours.
      population: public number of units.
      steps: that run, or ran.
      noise_multiplier: sigma, >= 0; what it multiplies is the clip norm.
      clip_norm: > 0; the first one where it moves.
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
        """Public number of units; never derived from who really is in the data."""

    @property
    def steps(self) -> int:
        """Steps that run, or ran."""

    @property
    def noise_multiplier(self) -> float:
        """Sigma, >= 0."""

    @property
    def clip_norm(self) -> float:
        """L2 bound of one unit's contribution to a step."""

    @property
    def delta(self) -> float:
        """What the bound on probabilities grants on top of the factor."""

    @property
    def adaptive(self) -> AdaptiveClipping | None:
        """How the clip norm moves; None where it is fixed."""

    @property
    def expected_batch_size(self) -> float:
        """The public constant that sums are divided by."""

    @property
    def update_noise_multiplier(self) -> float:
        """Noise multiplier of each independent draw of noise on updates alone."""

    @property
    def effective_noise_multiplier(self) -> float:
        """Noise multiplier of everything that one step draws, as a single Gaussian mechanism on one unit."""

    @property
    def coefficients(self) -> tuple[float, ...]:
        """First column of the banded Toeplitz matrix C: noise of the steps is C^-1 times independent draws."""

    @property
    def restart_every(self) -> int | None:
        """Steps whose noise comes from one tree; None where there are no trees."""

    @property
    def composition(self) -> Composition | None:
        """What it amounts to for one unit; None where no composition of subsampled Gaussians describes it."""

    @property
    def label(self) -> str:
        """What a run's name says of the mechanism; empty for the usual one."""

    @property
    def law(self) -> str:
        """Who joins when, as the accounting assumes it: a clause without a full stop."""

    @property
    def schedule_in_words(self) -> str:
        """The numbers of the schedule, for one line."""

    def executed(self, steps: int) -> Self:
        """Returns this mechanism with the steps that really ran.

        Raises:
          UserError: more steps than planned, or fewer than none.
        """

    def with_noise(self, sigma: float) -> Self:
        """Returns this mechanism with another noise multiplier."""

    def with_update_noise(self, sigma: float, adaptive: AdaptiveClipping | None = None) -> Self:
        """Returns this mechanism with the noise multiplier that gives updates this one.

        Args:
          sigma: noise multiplier of updates.
          adaptive: how a clip norm that moves does so from now on; None leaves that as it is.
        """

    def dp_event(self) -> Any:
        """The mechanism as a `dp_accounting.DpEvent`."""

    def epsilon(self) -> float:
        """Epsilon at its delta, by the accountant of the guarantee. Zero steps have epsilon 0.

        Raises:
          UserError: the mechanism adds no noise.
        """

    def quick_epsilon(self, coarseness: int = 1) -> float:
        """The same to rounding, quickly: for searches and progress, never for a guarantee.

        Args:
          coarseness: of a discretised privacy loss; 1 is the guarantee's. More is faster and gives a larger epsilon.
        """

    def lower_bound(self, mu: float) -> float:
        """Epsilon if a contribution is at least `mu` deviations of one draw of noise; 0 for mu <= 0."""

    def cohort_size(self, units: int) -> float:
        """Expected number of units that join a step where so many are present."""

    def sampler(self, units: int, rng: np.random.Generator) -> Sampler:
        """Who joins each step.

        Args:
          units: number of units present.
          rng: the run's private stream.
        """

    def participation(self, units: int) -> Participation:
        """A record that holds a run to the law of `sampler`."""

    def participation_faults(self, joined: NDArray[np.bool_], level: float) -> list[str]:
        """How observed participation differs from the law.

        Args:
          joined: (steps, units).
          level: false alarm rate of each test.
        """

    def whitened(self, noise: Floats) -> Floats:
        """Turns what steps added, (steps, coordinates), into as many independent draws of the update's noise."""

    def resized(self, size: ProblemSize) -> Self:
        """The same kind of mechanism on an audit's linear problem; noise and clip norm stay."""

    def among(self, units: int, steps: int, *, join: float, longest: int) -> Self:
        """The same kind of mechanism among so few units.

        Args:
          units: of the problem, who are its population.
          steps: of its run.
          join: share of units that joins a step, or more.
          longest: as in `ProblemSize`.
        """

    def how(self) -> str:
        """One paragraph of the statement: what was done."""

    def participation_assumption(self, *, judged: bool) -> str:
        """One sentence of the statement on who joined.

        Args:
          judged: whether the record of the run was held against the law.
        """

    def remark(self) -> str | None:
        """One line on a mechanism that is valid and hardly sensible; None where there is nothing to say."""

    def schedule(self) -> dict[str, Any]:
        """What privacy.json says of who joins when: mechanism, sampler, and the keys of `SCHEDULE`."""

    @classmethod
    def from_schedule(cls, values: Mapping[str, Any], common: Mapping[str, Any]) -> Self:
        """Reads what `schedule` wrote.

        Args:
          values: of privacy.json.
          common: fields that all mechanisms share, of the right types.
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


def require_planned(steps: int, planned: int) -> None:
    """Refuses executed steps that a plan does not have.

    Raises:
      UserError: more than planned, or fewer than none.
    """
    if not 0 <= steps <= planned:
        raise UserError(f"mechanism plan: {steps} executed steps do not fit the {planned} planned")


LEAST_NOISE, MOST_NOISE = 0.1, 1000.0
"""Of an audit's bounds: a smaller noise multiplier counts as the least, where epsilon is beyond any use, and a larger
one as epsilon 0."""


def epsilon_at_noise(mechanism: Mechanism, sigma: float) -> float:
    """Epsilon of a mechanism with another noise multiplier and a fixed clip norm, to rounding.

    Args:
      mechanism: its own noise and adaptive clipping are ignored.
      sigma: > 0, may be infinite.
    """
    if sigma > MOST_NOISE:
        return 0.0
    plain = mechanism if mechanism.adaptive is None else replace(mechanism, adaptive=None)
    return plain.with_noise(max(sigma, LEAST_NOISE)).quick_epsilon()


def resized_delta(delta: float, units: int) -> float:
    """A delta that fits a smaller population; no engine reads it."""
    return min(delta, 0.5 / units)
