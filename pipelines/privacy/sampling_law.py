"""P-values of statistics of Poisson samples, valid for every number of units and steps.

A binomial tail is exact. The other statistics are sums of independent terms with an exact cumulant generating function
K. For them P[sum >= x] <= exp(K(t) - t x) at every t > 0, and the same holds for the lower tail. Matched normal or
chi-square tails are more exact in the middle. Far out they are false for small samples, and a run fails exactly there.
A bound never has more false alarms than its level, and it loses only a small factor of power.

Source: Chernoff 1952, doi:10.1214/aoms/1177729330, theorem 1.
"""

from collections.abc import Callable
from math import exp, log, log1p, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import betainc, gammaln, logsumexp

SMALLEST, LARGEST = 1e-6, 1e6  # range of |t|: any t gives a valid bound, and this range contains a sharp one
LARGEST_PER_PAIR = 30.0


def binomial_p(successes: int, trials: int, q: float) -> float:
    """Two-sided p-value of a binomial count: twice the smaller tail."""
    return min(1.0, 2 * min(_binomial_tails(successes, trials, q)))


def extreme_unit_p(inclusions: NDArray[np.int64], steps: int, q: float) -> float:
    """P-value of the unit that joined most or least often, by a union bound over units and tails."""
    seldom, _ = _binomial_tails(int(inclusions.min()), steps, q)
    _, often = _binomial_tails(int(inclusions.max()), steps, q)
    return min(1.0, 2 * len(inclusions) * min(seldom, often))


def dispersion_p(observed: float, *, terms: int, trials: int, q: float) -> float:
    """Two-sided p-value of the dispersion of binomial counts.

    Args:
      observed: sum of (count - trials q)^2 / (trials q (1 - q)) over the counts; its mean is `terms`.
      terms: number of independent counts, >= 1.
      trials: of each count, >= 1.
      q: in (0, 1).
    """
    counts = np.arange(trials + 1)
    ways = gammaln(trials + 1) - gammaln(counts + 1) - gammaln(trials - counts + 1)
    logs = ways + counts * log(q) + (trials - counts) * log1p(-q)
    logs -= logsumexp(logs)
    values = (counts - trials * q) ** 2 / (trials * q * (1 - q))
    return _two_sided(lambda t: terms * float(logsumexp(logs + t * values)), observed, LARGEST)


def overlap_p(observed: int, *, units: int, steps: int, q: float) -> float:
    """Two-sided p-value of the number of units that join two consecutive steps, summed over steps.

    For one unit, the expectation u_T of exp(t * pairs) after T steps is u_T = (1 - q + q e^t) u_(T-1)
    - q (1 - q) (e^t - 1) u_(T-2), with u_0 = u_1 = 1. This follows from the transfer matrix [[1-q, q], [1-q, q e^t]]
    and Cayley-Hamilton.

    Args:
      observed: units in steps 1 and 2, plus units in steps 2 and 3, and so on.
      units: >= 1.
      steps: >= 2.
      q: in (0, 1).
    """

    def cumulant(t: float) -> float:
        trace, determinant = 1 - q + q * exp(t), q * (1 - q) * (exp(t) - 1)
        large = (trace + sqrt((1 - q - q * exp(t)) ** 2 + 4 * q * (1 - q))) / 2
        small = determinant / large
        first = (1 - small) / (large - small)
        return units * (steps * log(large) + log(first + (1 - first) * (small / large) ** steps))

    return _two_sided(cumulant, observed, LARGEST_PER_PAIR)


def _two_sided(cumulant: Callable[[float], float], observed: float, largest: float) -> float:
    """Twice the smaller of the Chernoff bounds of both tails."""
    lowest = 0.0
    for side in (-1, 1):

        def exponent(size: float, side: int = side) -> float:
            t = side * exp(size)
            return cumulant(t) - t * observed

        found = minimize_scalar(
            exponent, bounds=(log(SMALLEST), log(largest)), method="bounded", options={"xatol": 0.02}
        )
        lowest = min(lowest, float(found.fun))
    return min(1.0, 2 * exp(lowest))


def _binomial_tails(count: int, trials: int, q: float) -> tuple[float, float]:
    """P[X <= count] and P[X >= count]."""
    # stats.binom agrees to 4e-9, but divides by zero at count = trials (scipy 1.9.3, a RuntimeWarning) and takes 6x.
    below = 1.0 if count >= trials else float(betainc(trials - count, count + 1, 1 - q))
    above = 1.0 if count <= 0 else float(betainc(count, trials - count + 1, q))
    return below, above
