"""From what an attack got right to a lower bound on epsilon, or to an estimate of it.

A bound is a certificate: it exceeds the true epsilon at most as often as its confidence allows. An estimate is not.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy import special, stats
from scipy.optimize import brentq

from pipelines.privacy.accounting.epsilon import quick_epsilon
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism

LEAST_NOISE, MOST_NOISE = 0.1, 1000.0
"""A smaller noise multiplier counts as the least, where epsilon is beyond any use, and a larger one as epsilon 0."""
MOST_EPSILON = 40.0
"""Where searches for epsilon end; nobody calls more privacy."""
GRID = 0.05
Gaussian = tuple[float, float]
"""Mean and standard deviation."""


def clopper_pearson_upper(errors: int, trials: int, confidence: float) -> float:
    """Largest error rate that explains so few errors.

    Args:
      errors: that were seen, 0 <= errors <= trials.
      trials: independent.
      confidence: one-sided, in (0, 1).

    Source: Clopper and Pearson 1934, doi:10.1093/biomet/26.4.404.
    """
    # As stats.binomtest's interval to 2e-10, whose search takes 4 ms where the quantile takes 2 us.
    return 1.0 if errors >= trials else float(special.betaincinv(errors + 1, trials - errors, confidence))


def gaussian_mu_lower_bound(
    *, false_positives: int, negatives: int, false_negatives: int, positives: int, confidence: float
) -> float:
    """Lower bound on the distance of two Gaussians of equal spread that a threshold fixed in advance told apart.

    Both error rates hold together with `confidence`, each with half of what is left (Bonferroni).

    Args:
      false_positives: of `negatives` observations without the unit, those above the threshold.
      negatives: > 0.
      false_negatives: of `positives` observations with the unit, those at or below it.
      positives: > 0.
      confidence: joint, in (0, 1).

    Returns:
      mu in units of the standard deviation; zero or less where nothing was told apart.

    Source: Nasr et al. 2023, arXiv:2302.07956, section 4; Dong et al. 2022, arXiv:1905.02383, section 2.2.
    """
    each = (1 + confidence) / 2
    false_positive_rate = clopper_pearson_upper(false_positives, negatives, each)
    false_negative_rate = clopper_pearson_upper(false_negatives, positives, each)
    return float(special.ndtri(1 - false_positive_rate) - special.ndtri(false_negative_rate))


def epsilon_at_noise(plan: PoissonGaussianMechanism, sigma: float) -> float:
    """Epsilon of a plan's sampling and steps with another noise multiplier, by the accountant of the guarantee.

    Args:
      plan: its own noise and adaptive clipping are ignored.
      sigma: > 0, may be infinite.
    """
    if sigma > MOST_NOISE:
        return 0.0
    return quick_epsilon(replace(plan, noise_multiplier=max(sigma, LEAST_NOISE), adaptive=None))


def mechanism_lower_bound(plan: PoissonGaussianMechanism, mu: float) -> float:
    """Epsilon of the plan if its steps are no more private than Gaussians at distance `mu`; 0 for mu <= 0."""
    return 0.0 if mu <= 0 else epsilon_at_noise(plan, 1 / mu)


def one_run_p_value(epsilon: float, *, canaries: int, guesses: int, correct: int, delta: float) -> float:
    """Bounds the probability of so many correct guesses about one run that is (epsilon, delta)-private.

    Args:
      epsilon: >= 0.
      canaries: m, each included independently with probability 1/2.
      guesses: r <= m, fixed in number before anything is seen; the others abstain.
      correct: v <= r.
      delta: >= 0.

    Source: Steinke, Nasr and Jagielski 2023, arXiv:2305.08846, section 5 and appendix D.
    """
    if correct == 0:
        return 1.0
    right = float(special.expit(epsilon))
    beta = float(special.betainc(correct, guesses - correct + 1, right))
    below = special.bdtr(np.arange(correct, dtype=float), guesses, right)  # P[Bin <= k] for k < correct
    before = np.concatenate([below[:-1][::-1], [0.0]])  # P[Bin < correct - i] for i = 1, ..., correct
    alpha = float(((below[-1] - before) / np.arange(1, correct + 1)).max())
    return min(1.0, beta + 2 * canaries * delta * alpha)


def one_run_lower_bound(*, canaries: int, guesses: int, correct: int, delta: float, confidence: float) -> float:
    """Largest epsilon below which no privacy would explain the guesses; see `one_run_p_value`."""

    def excess(value: float) -> float:
        p = one_run_p_value(value, canaries=canaries, guesses=guesses, correct=correct, delta=delta)
        return p - (1 - confidence)

    return _first_root(excess)


def _first_root(excess: Callable[[float], float]) -> float:
    """Where a function first rises above zero; a grid comes first, lest a later crossing be found."""
    for k in range(round(MOST_EPSILON / GRID)):
        if excess((k + 1) * GRID) > 0:
            low = k * GRID
            return 0.0 if k == 0 and excess(0.0) >= 0 else float(brentq(excess, low, low + GRID, xtol=1e-6))
    return MOST_EPSILON


def gaussian_pair_epsilon(absent: Gaussian, present: Gaussian, delta: float) -> float:
    """Epsilon at delta between two Gaussians, in the worse direction: an estimate where they were fitted to scores.

    Args:
      absent: mean and standard deviation, > 0, of the scores of canaries that were left out.
      present: of those that were in.
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

    In units of Q, the densities' log ratio exceeds epsilon where a x^2 + b x + c > 0.
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
    """Probability of a standard normal number in [low, high], from the tail that keeps its digits."""
    if low > 0:
        return float(special.ndtr(-low) - special.ndtr(-high))
    return float(special.ndtr(high) - special.ndtr(low))


def chi_square_interval(degrees: int, confidence: float) -> tuple[float, float]:
    """Two-sided interval of a chi-square number over its degrees of freedom, around 1."""
    low, high = stats.chi2.interval(confidence, degrees)
    return float(low) / degrees, float(high) / degrees
