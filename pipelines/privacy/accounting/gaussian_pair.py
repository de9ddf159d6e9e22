"""Epsilon between two Gaussian distributions."""

import math

from scipy import special
from scipy.optimize import brentq

MOST_EPSILON = 40.0
"""Upper end of searches for epsilon; a larger epsilon protects nothing."""
Gaussian = tuple[float, float]
"""Mean and standard deviation."""


def gaussian_pair_epsilon(absent: Gaussian, present: Gaussian, delta: float) -> float:
    """Epsilon at delta between two Gaussians, in the worse direction; an estimate if they were fitted to scores.

    Args:
      absent: mean and standard deviation, > 0, of the scores of canaries that were left out.
      present: the same for canaries that were included.
      delta: in (0, 1).

    Returns:
      At most `MOST_EPSILON`.

    Source: Andrew et al. 2023, arXiv:2302.03098, section 3 and appendix A.
    """

    def excess(value: float) -> float:
        return max(hockey_stick(value, absent, present), hockey_stick(value, present, absent)) - delta

    if excess(0.0) <= 0:
        return 0.0
    return MOST_EPSILON if excess(MOST_EPSILON) >= 0 else float(brentq(excess, 0.0, MOST_EPSILON, xtol=1e-6))


def hockey_stick(epsilon: float, first: Gaussian, second: Gaussian) -> float:
    """Largest P[A] - e^epsilon Q[A] over events A, for Gaussians P = `first` and Q = `second`; in [0, 1].

    In standard units of Q, the log ratio of the densities exceeds epsilon where a x^2 + b x + c > 0.
    """
    mean, std = (first[0] - second[0]) / second[1], first[1] / second[1]
    a, b, c = (1 - std**-2) / 2, mean / std**2, -((mean / std) ** 2) / 2 - math.log(std) - epsilon
    if abs(a) < 1e-9:
        if b == 0:
            return 0.0
        edge = -c / b
        events = [(edge, math.inf)] if b > 0 else [(-math.inf, edge)]
    elif (discriminant := b * b - 4 * a * c) <= 0:
        events = [(-math.inf, math.inf)] if a > 0 else []
    else:
        low, high = sorted(((-b - math.sqrt(discriminant)) / (2 * a), (-b + math.sqrt(discriminant)) / (2 * a)))
        events = [(-math.inf, low), (high, math.inf)] if a > 0 else [(low, high)]
    gained = sum(_mass((low - mean) / std, (high - mean) / std) for low, high in events)
    paid = sum(_mass(low, high) for low, high in events)
    return max(0.0, gained - math.exp(epsilon) * paid)


def _mass(low: float, high: float) -> float:
    """Probability of a standard normal number in [low, high], computed from the more precise tail."""
    if low > 0:
        return float(special.ndtr(-low) - special.ndtr(-high))
    return float(special.ndtr(high) - special.ndtr(low))
