"""Banded matrix factorisation: noise that later steps take off again in part, on samples that go round in groups.

**What is released.** Let row t of G be the sum of the clipped contributions of step t = 0, 1, ..., and let C be the
lower-triangular Toeplitz matrix with C[t, t - j] = c_j for j < b and zeros elsewhere: it has b bands. With independent
rows of Z, each N(0, (sigma clip)^2 I), step t releases row t of G + X, where C X = Z:

    x_t = (z_t - c_1 x_(t-1) - ... - c_(b-1) x_(t-b+1)) / c_0,

so that b - 1 past draws are all the memory it takes (Choquette-Choo et al. 2023, algorithm 9). A sum over steps, which
is what SGD makes of releases, has the noise A C^-1 Z with A the matrix of prefix sums: less than A Z. One band,
c = (1), is plain noise.

**Who joins.** Each unit gets one of b groups, at random and whatever the others get, and step t samples group t mod b
alone, each member with probability q (algorithm 2 of the same paper, with independent groups). The turns of groups are
public. Which group a unit is in comes from the run's private stream and is as secret as the samples, though the
argument below would let it be known.

**Why the epsilon is that of ceil(steps / b) Poisson-subsampled Gaussian steps** at q and sigma (theorem 4 of the same
paper, for columns of norm 1 at most). C G + Z determines all that is released, and the other way round. Take a unit,
fix everybody's group, and the others' coins.

1. The unit can join steps g, g + b, g + 2b, ... alone: ceil(steps / b) of them at most. What it adds to step t reaches
   C G through column t of C, which is zero outside rows t to t + b - 1. Two of its columns are at least b apart, so no
   row has a part of both: the rows fall into blocks, one a turn, and rows before its first turn do not depend on it.
2. In a block, the unit adds c_0 v, ..., c_(b-1) v if its coin says so, else nothing, where |v| <= clip follows from
   what was released before the block. Its length is |c| |v| <= clip, since |c| <= 1; where the run ends within the
   block, a part of c is missing, and it is shorter. Whatever the signs of c are: no product of columns counts.
3. All else in the block follows from what was released before each row, and can be taken off. What is left is Z, or Z
   plus a vector of length clip at most with probability q: the Poisson-subsampled Gaussian mechanism, which knows no
   direction. Blocks compose adaptively.

The divergence of the two mixtures over groups and coins is at most the mean of what it is for fixed ones (it is jointly
convex), and one unit more or fewer leaves the law of the others' groups as it is. Groups of equal size would not, since
one unit fewer moves others. Nor would groups that a public seed deals by position, since those behind it move up.

Without samples, a separation of b steps gives the same sensitivity: Kalinin and Lampert 2024, theorem 2.

Source: Choquette-Choo et al. 2023, arXiv:2306.08153; Kalinin and Lampert 2024, arXiv:2405.13763 (banded square root);
McKenna 2024, arXiv:2405.15913 (optimised banded Toeplitz matrices).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, isfinite, log
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipelines.core.errors import GuaranteeError, UserError
from pipelines.privacy.accounting.epsilon import composition_event, pld_epsilon, quick_pld_epsilon
from pipelines.privacy.mechanisms.banded_noise import whitened
from pipelines.privacy.mechanisms.base import (
    AdaptiveClipping,
    Composition,
    Floats,
    NeighboringRelation,
    PrivacyUnit,
    ProblemSize,
    epsilon_at_noise,
    require_delta,
    require_planned,
    require_poisson,
    require_resolved_delta,
    require_sizes,
    resized_delta,
)
from pipelines.privacy.rounding import rounded_down
from pipelines.privacy.sampling import Sample, SamplerRecord, SamplerVerdict, poisson_sample, sampling_faults

NORM_ROUNDING = 1e-9
"""What floating point may add to the squared length of coefficients."""
LEAST_TURNS = 8
"""Of an audit's problem: cycles that show how a unit's coins fall."""


class CyclicSampler:
    """Draws one Poisson sample a step, from the group whose turn it is.

    Attributes:
      groups: which of the groups 0, ..., bands - 1 each unit is in, int64, (units,). Secret, as the samples are.
    """

    def __init__(self, units: int, *, q: float, bands: int, rng: np.random.Generator) -> None:
        """Deals the groups.

        Args:
          units: number of units present, which may differ from the public population.
          q: sampling probability within a group, in (0, 1].
          bands: number of groups; with one, samples are those of a `PoissonSampler` with the same stream.
          rng: the run's private stream. A group is made of a draw of its own, so that no unit depends on another.
        """
        self.groups = np.zeros(units, np.int64) if bands == 1 else np.floor(bands * rng.random(units)).astype(np.int64)
        self._members = [np.flatnonzero(self.groups == group) for group in range(bands)]
        self._q, self._rng, self._step = q, rng, 0

    def draw(self) -> Sample:
        """Returns the next step's sample: sorted indices, int64, of any length from 0 to that of the group."""
        members = self._members[self._step % len(self._members)]
        self._step += 1
        return members[poisson_sample(len(members), self._q, self._rng)]


class CyclicRecord:
    """Watches the samples that a run trains on: each unit joins in the turns of one group, with probability q.

    A unit's group is known from the first step that it joins. In each cycle of steps every unit has one turn, so that
    the units that join in a cycle are a Poisson sample of all units. The verdict tests this, how often units joined in
    the cycle that is not over, and that no group is too large or too small. That groups are dealt independently it
    cannot see. The record holds who has joined, which epsilon does not cover: only its verdict is logged.
    """

    def __init__(self, units: int, *, q: float, bands: int) -> None:
        """Starts before the first step.

        Args:
          units: number of units present.
          q: the plan's sampling probability within a group.
          bands: number of groups.
        """
        self._units, self._q, self._bands = units, q, bands
        self._turns, self._known = np.full(units, -1), np.full(units, -1)
        self._cycles, self._cycle = SamplerRecord(units, q), np.zeros(0, np.int64)
        self._step, self._sets, self.latest = 0, True, np.zeros(units, np.bool_)

    def observe(self, sample: Sample) -> None:
        """Adds a step's sample before it trains.

        Raises:
          GuaranteeError: a unit joins out of turn, where noise that covered it is subtracted again.
        """
        turn = self._step % self._bands
        self._step += 1
        there = sample[(sample >= 0) & (sample < self._units)]
        if ((self._turns[there] >= 0) & (self._turns[there] != turn)).any():
            raise GuaranteeError(
                f"step {self._step} contradicts its plan: of {self._bands} groups that take turns, a unit joins in a "
                "second one; the epsilon would be false, so the run ends before it"
            )
        self._turns[there] = turn
        self._sets &= len(np.unique(there)) == len(sample)
        self.latest = np.isin(np.arange(self._units), there)
        self._cycle = np.concatenate([self._cycle, sample])
        if turn == self._bands - 1:
            self._cycles.observe(self._cycle)
            self._cycle, self._known = np.zeros(0, np.int64), self._turns.copy()

    def verdict(self) -> SamplerVerdict:
        """Judges the full cycles so far, the open one, and the sizes of groups."""
        from pipelines.privacy.sampling_law import binomial_p

        found, law = [self._cycles.verdict()], "cyclic poisson"
        if not self._sets:
            found.append(SamplerVerdict(p_value=0.0, test="a unit twice in a sample, or one that is not there"))
        if turns := self._step % self._bands:
            p = binomial_p(len(self._cycle), self._units, self._q * turns / self._bands)
            found.append(SamplerVerdict(p_value=p, test="total of the open cycle"))
        sizes = np.bincount(self._known[self._known >= 0], minlength=self._bands)
        if self._bands > 1 and sizes.any():
            p = min(binomial_p(int(size), int(sizes.sum()), 1 / self._bands) for size in sizes) * self._bands
            found.append(SamplerVerdict(p_value=min(1.0, p), test="size of a group"))
        worst = min(found, key=lambda verdict: verdict.p_value)
        return SamplerVerdict(p_value=float(f"{min(1.0, len(found) * worst.p_value):.0e}"), test=worst.test, law=law)


def cyclic_faults(joined: NDArray[np.bool_], *, q: float, bands: int, level: float) -> list[str]:
    """How observed samples differ from those of groups that take turns.

    Args:
      joined: who joined, (steps, units).
      q: sampling probability within a group.
      bands: number of groups.
      level: false alarm rate of each test.
    """
    if (np.array([joined[turn::bands].any(axis=0) for turn in range(bands)]).sum(axis=0) > 1).any():
        return [f"of {bands} groups that take turns, a unit joins in two"]
    cycles = len(joined) // bands
    return sampling_faults(joined[: cycles * bands].reshape(cycles, bands, -1).any(axis=1), q, level) if cycles else []


@dataclass(frozen=True, kw_only=True)
class BandedMechanism:
    """Correlated noise from a banded Toeplitz matrix, on Poisson samples of groups in turn; a `Mechanism`.

    Attributes:
      unit: who is protected.
      relation: add or remove one unit.
      population: public number of units; never derived from who really is in the data.
      sampling_probability: q, in (0, 1], of each member of the group whose turn it is.
      steps: >= 0; 0 only in an executed plan.
      noise_multiplier: sigma of the rows of C X, >= 0. Zero means no noise: such a plan has no finite epsilon.
      clip_norm: > 0.
      delta: in (0, 1/population).
      coefficients: c_0, c_1, ... of C, of L2 norm 1 at most; as many as groups.

    Raises:
      UserError: a value out of range.
    """

    name: ClassVar[str] = "banded"
    SCHEDULE: ClassVar[Mapping[str, str]] = {"sampling_probability": "a finite number", "coefficients": "a list"}
    restart_every: ClassVar[int | None] = None
    adaptive: ClassVar[AdaptiveClipping | None] = None

    unit: PrivacyUnit
    population: int
    sampling_probability: float
    steps: int
    noise_multiplier: float
    clip_norm: float
    delta: float
    coefficients: tuple[float, ...]
    relation: NeighboringRelation = NeighboringRelation.ADD_OR_REMOVE_ONE

    def __post_init__(self) -> None:
        require_poisson(
            self.relation, self.population, self.steps, self.sampling_probability,
            within=f" within each of {self.bands} groups", remedy="privacy.bands or the size of samples",
        )  # fmt: skip
        squares = sum(value * value for value in self.coefficients)
        if not (self.coefficients and self.coefficients[0] > 0 and isfinite(squares) and squares <= 1 + NORM_ROUNDING):
            raise UserError(
                f"mechanism plan: coefficients of squared length {squares:g} must start above 0 and have length 1 at "
                "most: a contribution would outgrow the clip norm"
            )
        require_sizes(self.noise_multiplier, self.clip_norm)
        require_delta(self.delta, self.population, self.unit)
        require_resolved_delta(self.delta, self.steps)

    @property
    def bands(self) -> int:
        """Bands of C, and groups of units."""
        return len(self.coefficients)

    @property
    def label(self) -> str:
        """The number of bands."""
        return f"banded {self.bands}"

    @property
    def expected_batch_size(self) -> float:
        """The public constant that sums are divided by: the expected number of sampled units."""
        return self.cohort_size(self.population)

    @property
    def update_noise_multiplier(self) -> float:
        """Noise multiplier of a row of C X."""
        return self.noise_multiplier

    @property
    def effective_noise_multiplier(self) -> float:
        """Noise multiplier of a row of C X."""
        return self.noise_multiplier

    @property
    def composition(self) -> Composition:
        """As many Poisson-subsampled Gaussian mechanisms as one unit has turns at most."""
        turns = ceil(self.steps / self.bands)
        sigma, q = self.noise_multiplier, self.sampling_probability
        return Composition(noise_multiplier=sigma, sampling_probability=q, steps=turns)

    def executed(self, steps: int) -> "BandedMechanism":
        """Returns this plan with the steps that really ran."""
        require_planned(steps, self.steps)
        return replace(self, steps=steps)

    def with_noise(self, sigma: float) -> "BandedMechanism":
        """Returns this plan with another noise multiplier."""
        return replace(self, noise_multiplier=sigma)

    def with_update_noise(self, sigma: float, adaptive: AdaptiveClipping | None = None) -> "BandedMechanism":
        """The same: there is no other noise."""
        return self.with_noise(sigma)

    def dp_event(self) -> Any:
        """A self-composed Poisson-sampled Gaussian."""
        return composition_event(self.composition)

    def epsilon(self) -> float:
        """By privacy loss distributions."""
        return pld_epsilon(self.composition, self.delta)

    def quick_epsilon(self) -> float:
        """By privacy loss distributions as arrays."""
        return quick_pld_epsilon(self.composition, self.delta)

    def lower_bound(self, mu: float) -> float:
        """For an adversary who sees all releases and knows the groups: full turns alone, whose columns are not cut."""
        turns = self.steps // self.bands
        if mu <= 0 or not turns:
            return 0.0
        return epsilon_at_noise(replace(self, steps=turns * self.bands), 1 / mu)

    def cohort_size(self, units: int) -> float:
        """Expected number of units that join a step."""
        return self.sampling_probability * units / self.bands

    def sampler(self, units: int, rng: np.random.Generator) -> CyclicSampler:
        """A Poisson sample each step, of the group whose turn it is."""
        return CyclicSampler(units, q=self.sampling_probability, bands=self.bands, rng=rng)

    def participation(self, units: int) -> CyclicRecord:
        """A record that ends a run before a unit joins out of turn, and is tested cycle by cycle."""
        return CyclicRecord(units, q=self.sampling_probability, bands=self.bands)

    def participation_faults(self, joined: NDArray[np.bool_], level: float) -> list[str]:
        """Who joined out of turn, and how cycles differ from Poisson samples."""
        return cyclic_faults(joined, q=self.sampling_probability, bands=self.bands, level=level)

    def whitened(self, noise: Floats) -> Floats:
        """Rows of C X."""
        return whitened(noise, self.coefficients)

    def resized(self, size: ProblemSize) -> "BandedMechanism":
        """Full cycles, so many that enough units join, and units so that samples are not tiny."""
        own, q = self._of_bands(size.most_steps // LEAST_TURNS), self.sampling_probability
        units = min(max(size.least_units, ceil(size.sample * own.bands / q)), size.most_units)
        turns = max(LEAST_TURNS, ceil(size.least_steps / own.bands), ceil(size.observations / (units * q)))
        if q < 1:  # enough turns to notice a unit that always joins
            turns = max(turns, ceil(log(size.rare / units) / log(q)))
        steps = own.bands * min(turns, size.most_steps // own.bands)
        return replace(own, population=units, steps=steps, delta=resized_delta(self.delta, units))

    def among(self, units: int, steps: int, *, join: float, longest: int) -> "BandedMechanism":
        """Each of so few units joins its turns with the plan's probability, or that one; the first bands alone."""
        q, delta = max(self.sampling_probability, join), resized_delta(self.delta, units)
        return replace(self._of_bands(longest), population=units, steps=steps, sampling_probability=q, delta=delta)

    def _of_bands(self, most: int) -> "BandedMechanism":
        kept = np.array(self.coefficients[:most])
        return self if most >= self.bands else replace(self, coefficients=tuple(kept / np.linalg.norm(kept)))

    @property
    def law(self) -> str:
        """Poisson sampling of groups in turn."""
        return (
            f"each {self.unit} is in one of {self.bands} groups that take turns, and group and joining are independent "
            "of everything else"
        )

    @property
    def schedule_in_words(self) -> str:
        """The groups and their sampling probability."""
        return f"{self.bands} groups in turn, sampling probability {self.sampling_probability:.6g}"

    def how(self) -> str:
        """Groups, clipping, correlated noise and division."""
        return (
            f"Banded matrix factorisation: each {self.unit} was put into one of {self.bands} groups at random. In each "
            f"of the {self.steps:,} steps that ran, one group had its turn. Each {self.unit} of the group joined "
            f"independently with probability {self.sampling_probability:.6g}. Each contribution was clipped to L2 norm "
            f"{self.clip_norm:g}. Gaussian noise was added to their sum. The noised sum was divided by the public "
            f"constant {self.expected_batch_size:g}. The noise of the steps is C^-1 times independent noise of "
            f"{rounded_down(self.noise_multiplier, 6)} times the clip norm, where C has {self.bands} bands and columns "
            f"of L2 norm 1. It protects a {self.unit} as plain noise of that multiplier does in "
            f"{self.composition.steps:,} Poisson-sampled steps with the same probability (Choquette-Choo et "
            "al. 2023, theorem 4). Steps with an empty sample also added noise, and the accounting "
            f"includes them. Neighbouring datasets differ by adding or removing one {self.unit}. The population of "
            f"{self.population:,} is a public number."
        )

    def participation_assumption(self, *, judged: bool) -> str:
        """Turns are checked before each step; full cycles are tested at the end."""
        tested = "were tested against" if judged else "were not tested, since the run did not end, against"
        return (
            f"The sampler: {self.law}. Before every step, the run checks that each {self.unit} joins only in the turns "
            f"of one group. The samples {tested} this law. A run that contradicts it fails (tag "
            "`privacy.sampler`)."
        )

    def remark(self) -> str | None:
        """There is nothing to say."""
        return None

    def schedule(self) -> dict[str, Any]:
        """Poisson sampling of groups in turn, and the first column of C, whose length bounds the sensitivity."""
        return {
            "mechanism": self.name,
            "sampler": "poisson, of groups in turn",
            "sampling_probability": self.sampling_probability,
            "bands": self.bands,
            "coefficients": list(self.coefficients),
        }

    @classmethod
    def from_schedule(cls, values: Mapping[str, Any], common: Mapping[str, Any]) -> "BandedMechanism":
        """Reads what `schedule` wrote."""
        coefficients = tuple(float(value) for value in values["coefficients"])
        return cls(**common, sampling_probability=values["sampling_probability"], coefficients=coefficients)

    @classmethod
    def logged_schedule(cls, sample: float, population: float, params: Mapping[str, str]) -> dict[str, float]:
        """The groups and their sampling probability."""
        bands = int(params["privacy.bands"])
        return {"sampling_probability": bands * sample / population, "bands": bands}
