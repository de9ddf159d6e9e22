"""The sampler that the accounting assumes, and the record that tests whether a run used it."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.core.errors import GuaranteeError

LEVEL = 1e-6
"""A run with a smaller p-value fails. At most one in a million correct Poisson samplers fails."""

Sample = NDArray[np.int64]


class SamplerError(GuaranteeError):
    """The samples of a run contradict the sampler that its epsilon assumes."""


def poisson_sample(units: int, q: float, rng: np.random.Generator) -> Sample:
    """Includes each of `units` independently with probability `q`.

    Args:
      units: number of units present; it may differ from the public population.
      q: sampling probability, in (0, 1].
      rng: the run's private stream.

    Returns:
      Sorted indices, int64, of any length from 0 to `units`.
    """
    if q == 1:
        return np.arange(units)
    # Whole numbers below q 2^64 use all 64 random bits, without a conversion to a fraction.
    return np.flatnonzero(np.frombuffer(rng.bytes(8 * units), np.uint64) < np.uint64(q * 2.0**64))


class Sampler(Protocol):
    """Decides which units join a step."""

    def draw(self) -> Sample:
        """Returns the next step's sample: sorted indices, int64."""


class Participation(Protocol):
    """Checks a run against the sampler that its epsilon assumes. It is private, except for its verdict."""

    @property
    def latest(self) -> NDArray[np.bool_]:
        """Whether each unit joined the last step, (units,); only for an audit's own problem."""

    def observe(self, sample: Sample) -> None:
        """Adds a step's sample, as it goes into training: indices, int64, shape (any,)."""

    def verdict(self) -> "SamplerVerdict":
        """Judges the steps so far."""


class PoissonSampler:
    """Draws one Poisson sample per step."""

    def __init__(self, units: int, q: float, rng: np.random.Generator) -> None:
        """Takes the arguments of `poisson_sample`."""
        self._units, self._q, self._rng = units, q, rng

    def draw(self) -> Sample:
        """Returns the next step's sample: sorted indices, int64, of any length from 0 to `units`."""
        return poisson_sample(self._units, self._q, self._rng)


@dataclass(frozen=True, kw_only=True)
class SamplerVerdict:
    """Whether the samples of a run are consistent with the sampler that its epsilon assumes.

    Attributes:
      p_value: an upper bound, over all tests (Bonferroni), on the probability that Poisson sampling looks as
        suspicious as this run; rounded to one digit, because more digits would reveal more about the samples.
      test: the test with the smallest p-value.
      law: the assumption of the plan: poisson, or turns, in which each user joins a tree at most once.
    """

    p_value: float
    test: str
    law: str = "poisson"

    @property
    def holds(self) -> bool:
        """Whether the plan's sampler explains the samples."""
        return self.p_value >= LEVEL

    def require(self) -> None:
        """Refuses a guarantee that would be false.

        Raises:
          SamplerError: the p-value is below `LEVEL`.
        """
        if not self.holds:
            raise SamplerError(
                f"the sampler contradicts its plan ({self.test}: p = {self.p_value:g} under the plan): "
                "the epsilon would be false, so none is given; correct how samples are drawn"
            )


@dataclass(frozen=True)
class _Seen:
    """Sums over the steps so far; replaced as a whole, so that an interruption never leaves a half-counted step."""

    steps: int
    inclusions: NDArray[np.int64]
    squares: float
    overlap: int
    latest: NDArray[np.bool_]
    sets: bool


def sampling_faults(joined: NDArray[np.bool_], q: float, level: float) -> list[str]:
    """Differences between observed samples and Poisson samples.

    Args:
      joined: whether each unit joined, (steps, units).
      q: sampling probability.
      level: false alarm rate of each test.
    """
    from pipelines.privacy.sampling_law import binomial_p

    steps, units = joined.shape
    count, trials = int(joined.sum()), units * steps
    if binomial_p(count, trials, q) < level:
        return [f"units join with probability {count / trials:.4g}, not {q:.4g}"]
    record = SamplerRecord(units, q)
    for sample in joined:
        record.observe(np.flatnonzero(sample))
    verdict = record.verdict()
    if verdict.p_value < level:
        return [f"the samples that trained are not those of the plan ({verdict.test}: p = {verdict.p_value:g})"]
    return _repeated_samples(joined, q, level)


def _repeated_samples(joined: NDArray[np.bool_], q: float, level: float) -> list[str]:
    """Tests whether any two steps share as many units as independent samples do."""
    from scipy import special

    steps, units = joined.shape
    as_numbers = joined.astype(np.float32)
    shared = np.rint(as_numbers @ as_numbers.T)[np.triu_indices(steps, 1)]
    if q == 1 or not len(shared):
        return []
    most, least = shared.max(), shared.min()
    above = special.bdtrc(most - 1, units, q * q) if most else 1.0
    below = special.bdtr(least, units, q * q)
    if len(shared) * min(above, below) < level / 2:
        return [f"two steps share {int(most if above < below else least)} of {units} units: a sample was used again"]
    return []


class SamplerRecord:
    """Statistics of the samples that an engine trained on; its memory grows with the number of units.

    It holds which units took part and how often. No epsilon covers that, so only its verdict may be logged.
    """

    def __init__(self, units: int, q: float) -> None:
        """Starts without a step.

        Args:
          units: number of units present.
          q: the plan's sampling probability, in (0, 1].
        """
        self._units, self._q = units, q
        self._seen = _Seen(0, np.zeros(units, np.int64), 0.0, 0, np.zeros(units, bool), True)

    def observe(self, sample: Sample) -> None:
        """Adds a step's sample, as it goes into training: indices, int64, shape (any,)."""
        before, joined = self._seen, np.zeros(self._units, bool)
        joined[sample[(sample >= 0) & (sample < self._units)]] = True
        self._seen = _Seen(
            steps=before.steps + 1,
            inclusions=before.inclusions + joined,
            squares=before.squares + (len(sample) - self._units * self._q) ** 2,
            overlap=before.overlap + int(np.count_nonzero(joined & before.latest)),
            latest=joined,
            sets=before.sets and int(np.count_nonzero(joined)) == len(sample),
        )

    @property
    def latest(self) -> NDArray[np.bool_]:
        """Whether each unit joined the last step, (units,); only for an audit's own problem."""
        return self._seen.latest

    def p_values(self) -> dict[str, float]:
        """Each test's p-value under independent inclusions with probability q; tests that cannot fail are left out.

        Each p-value is exact or an upper bound, for any number of units and steps.
        """
        # Imported late, because scipy's optimizer takes time to import and runs without privacy do not need it.
        from pipelines.privacy.sampling_law import binomial_p, dispersion_p, extreme_unit_p, overlap_p

        seen, units, q = self._seen, self._units, self._q
        if not seen.sets:
            return {"a unit twice in a sample, or one that is not there": 0.0}
        if not seen.steps or not units:
            return {}
        total = int(seen.inclusions.sum())
        if q == 1:
            return {"every unit in every sample": float(total == units * seen.steps)}
        variance = q * (1 - q)
        spread = float(((seen.inclusions - seen.steps * q) ** 2).sum()) / (seen.steps * variance)
        found = {
            "total of inclusions": binomial_p(total, units * seen.steps, q),
            "spread of sample sizes": dispersion_p(
                seen.squares / (units * variance), terms=seen.steps, trials=units, q=q
            ),
            "spread of inclusions over units": dispersion_p(spread, terms=units, trials=seen.steps, q=q),
            "most extreme unit": extreme_unit_p(seen.inclusions, seen.steps, q),
        }
        if seen.steps > 1:
            found["overlap of consecutive samples"] = overlap_p(seen.overlap, units=units, steps=seen.steps, q=q)
        return found

    def verdict(self) -> SamplerVerdict:
        """Judges the steps so far."""
        found = self.p_values()
        if not found:
            return SamplerVerdict(p_value=1.0, test="nothing to test")
        test = min(found, key=found.__getitem__)
        return SamplerVerdict(p_value=float(f"{min(1.0, len(found) * found[test]):.0e}"), test=test)
