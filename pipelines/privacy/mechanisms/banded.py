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
public. Which group a unit is in is as secret as the samples: it comes from the run's private stream.

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
convex), and one unit more or fewer leaves the law of the others' groups as it is. Equal groups would not: there, one
unit fewer moves others. Nor would groups that a public seed deals by position, where the next unit moves up.

Without samples, a separation of b steps gives the same sensitivity: Kalinin and Lampert 2024, theorem 2.

Source: Choquette-Choo et al. 2023, arXiv:2306.08153; Kalinin and Lampert 2024, arXiv:2405.13763 (banded square root);
McKenna 2024, arXiv:2405.15913 (optimised banded Toeplitz matrices).
"""

from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipelines.core.errors import GuaranteeError
from pipelines.privacy.sampling import Sample, SamplerRecord, SamplerVerdict, poisson_sample

Floats = NDArray[np.float64]
Array = TypeVar("Array", bound=Any)
LARGEST = 1e150
"""Of an error whose square is still a float; the search for coefficients passes matrices whose inverse explodes."""


def square_root_coefficients(bands: int) -> Floats:
    """Coefficients of a banded square root of the prefix sums, of L2 norm 1, float64, (bands,).

    C C = A for c_k = binom(2k, k) / 4^k, the series of (1 - z)^(-1/2); it is cut after `bands` and scaled.

    Args:
      bands: >= 1.

    Source: Fichtenberger et al. 2022, arXiv:2202.11205; Kalinin and Lampert 2024, arXiv:2405.13763.
    """
    k = np.arange(1, bands)
    coefficients = np.concatenate([[1.0], np.cumprod((2 * k - 1) / (2 * k))])
    return np.asarray(coefficients / np.linalg.norm(coefficients))


@lru_cache(maxsize=64)
def optimal_coefficients(bands: int, steps: int) -> tuple[float, ...]:
    """Coefficients, of L2 norm 1, that give the prefix sums of so many steps the least mean squared error.

    They are 2 to 22 % better, in the root of that error, than the square root's, the more the longer a run is beside
    its bands. The problem has one local minimum wherever it was tried.

    Args:
      bands: >= 1.
      steps: >= bands.

    Source: McKenna 2024, arXiv:2405.15913, section 4.
    """
    from scipy.optimize import minimize  # late: runs with other noise do without

    if bands == 1:
        return (1.0,)
    start = square_root_coefficients(bands)
    options = {"maxiter": 1000, "ftol": 1e-13, "gtol": 1e-9}
    found = minimize(_log_error, start, args=(steps,), jac=True, method="L-BFGS-B", options=options).x
    return tuple(float(value) for value in found / np.linalg.norm(found))


def _log_error(direction: Floats, steps: int) -> tuple[float, Floats]:
    """Logarithm of the summed squared error of the prefix sums, for coefficients along `direction`, and its gradient.

    With w = A C^-1 e_0 the error is the sum of (steps - t) w_t^2, and w changes with c_j by -C^-1 w, moved down by j.
    """
    from scipy.signal import lfilter

    length = float(np.linalg.norm(direction))
    coefficients = direction / length
    weights = np.arange(steps, 0, -1)
    with np.errstate(over="ignore", invalid="ignore"):
        response = _summed_response(coefficients, steps)
        if not np.abs(response).max() < LARGEST:
            return float(np.log(LARGEST)), np.zeros_like(direction)
        error = float(weights @ response**2)
        back = lfilter([1.0], coefficients, (weights * response)[::-1])[::-1]
    gradient = np.array([-2 / error * (back[j:] @ response[: steps - j]) for j in range(len(coefficients))])
    return float(np.log(error)), (gradient - coefficients * (gradient @ coefficients)) / length


def _summed_response(coefficients: Floats, steps: int) -> Floats:
    """What one unit of noise in the first step adds to each prefix sum: A C^-1 e_0, (steps,)."""
    from scipy.signal import lfilter

    pulse = np.zeros(steps)
    pulse[0] = 1
    return np.asarray(np.cumsum(lfilter([1.0], coefficients, pulse)))


def prefix_sum_variances(coefficients: tuple[float, ...] | Floats, steps: int) -> Floats:
    """Variance of the noise on the sum of the first 1, 2, ..., `steps` releases, per coordinate, for sigma clip = 1.

    Their mean and their largest, the last one, are the mean and the maximal squared error; plain noise has 1, 2, 3, ...
    """
    return np.asarray(np.cumsum(_summed_response(np.asarray(coefficients), steps) ** 2))


def strategy_matrix(coefficients: tuple[float, ...] | Floats, steps: int) -> Floats:
    """C, dense, (steps, steps): for tests and audits, never for training."""
    matrix = np.zeros((steps, steps))
    for j, value in enumerate(coefficients[:steps]):
        matrix[np.arange(j, steps), np.arange(steps - j)] = value
    return matrix


def whitened(noise: Floats, coefficients: tuple[float, ...] | Floats) -> Floats:
    """Turns the noise on releases, (steps, ...), back into the independent draws that it came from: C X = Z."""
    draws = np.zeros_like(noise)
    for j, value in enumerate(coefficients[: len(noise)]):
        draws[j:] += value * noise[: len(noise) - j]
    return draws


class CorrelatedNoise:
    """Makes the noise on releases from independent draws, step by step: row t of X with C X = Z.

    All but one of C's bands are paid for in memory, with past rows of X. As everything that noise is made of, these are
    secret. Errors of rounding die out: the polynomial of coefficients that fall has no root within the unit circle
    (Enestrom and Kakeya), so that the recursion forgets.
    """

    def __init__(self, coefficients: Sequence[float]) -> None:
        """Starts before the first step.

        Args:
          coefficients: c_0, c_1, ... of C.
        """
        self._first, *self._others = coefficients
        self._past: deque[list[Any]] = deque(maxlen=len(self._others))

    def next(self, draws: Sequence[Array]) -> list[Array]:
        """Returns the noise of the next step, in new arrays, of float64 as the draws are.

        Args:
          draws: standard normal, one array or tensor for each of the model's; the same shapes in every step.
        """
        noise = list(draws)
        for value, past in zip(self._others, self._past, strict=False):  # fewer rows than bands at first
            noise = [draw - value * before for draw, before in zip(noise, past, strict=True)]
        noise = [draw / self._first for draw in noise]
        self._past.appendleft(noise)
        return [+values for values in noise] if self._others else noise


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
    """Watches the samples that a run trains on: nobody out of turn, and within a group independent coins.

    It holds who has joined, which epsilon does not cover; nothing of it is logged but its verdict.
    """

    def __init__(self, groups: NDArray[np.int64], *, q: float, bands: int) -> None:
        """Starts before the first step.

        Args:
          groups: of the units, as dealt before it; a copy is kept, so that later changes show.
          q: the plan's sampling probability within a group.
          bands: number of groups.
        """
        self._groups = groups.copy()
        self._records, self._place = [], np.zeros(len(groups), np.int64)  # of each unit in its group
        for group in range(bands):
            members = np.flatnonzero(groups == group)
            self._place[members] = np.arange(len(members))
            self._records.append(SamplerRecord(len(members), q))
        self._step, self.latest = 0, np.zeros(len(groups), np.bool_)

    def observe(self, sample: Sample) -> None:
        """Adds a step's sample before it trains.

        Raises:
          GuaranteeError: somebody joins out of turn, who could then meet the same noise twice.
        """
        turn = self._step % len(self._records)
        self._step += 1
        there = (sample >= 0) & (sample < len(self._groups))
        if (self._groups[sample[there]] != turn).any():
            raise GuaranteeError(
                f"step {self._step} contradicts its plan: it samples group {turn + 1} of {len(self._records)} alone, "
                "and a unit of another group joins; the epsilon would be false, so the run ends before it"
            )
        self.latest = np.isin(np.arange(len(self._groups)), sample)
        self._records[turn].observe(np.where(there, self._place[np.where(there, sample, 0)], -1))

    def verdict(self) -> SamplerVerdict:
        """Judges the steps so far, each group by the tests of Poisson samples; the p-value is for all of them."""
        found = [
            (p_value, f"{test}, group {group} of {len(self._records)}" if len(self._records) > 1 else test)
            for group, record in enumerate(self._records, 1)
            for test, p_value in record.p_values().items()
        ]
        if not found:
            return SamplerVerdict(p_value=1.0, test="nothing to test", law="cyclic poisson")
        least, test = min(found)
        return SamplerVerdict(p_value=float(f"{min(1.0, len(found) * least):.0e}"), test=test, law="cyclic poisson")
