"""Turns the success of an attack into a lower bound on epsilon, or into an estimate.

A bound is a certificate: it exceeds the true epsilon with a probability of at most 1 - confidence. An estimate is not.
"""

from collections.abc import Callable

import numpy as np
from scipy import special, stats
from scipy.optimize import brentq

from pipelines.privacy.accounting.gaussian_pair import MOST_EPSILON

GRID = 0.05


def clopper_pearson_upper(errors: int, trials: int, confidence: float) -> float:
    """Upper confidence bound on an error rate.

    Args:
      errors: number of observed errors, 0 <= errors <= trials.
      trials: number of independent trials.
      confidence: one-sided, in (0, 1).

    Source: Clopper and Pearson 1934, doi:10.1093/biomet/26.4.404.
    """
    # Equal to the interval of stats.binomtest up to 2e-10. Its search takes 4 ms; the quantile takes 2 us.
    return 1.0 if errors >= trials else float(special.betaincinv(errors + 1, trials - errors, confidence))


def gaussian_mu_lower_bound(
    *, false_positives: int, negatives: int, false_negatives: int, positives: int, confidence: float
) -> float:
    """Lower bound on the distance of two Gaussians of equal standard deviation, from a threshold fixed in advance.

    The bounds on both error rates hold jointly with `confidence`; each may fail with half of the remaining probability
    (Bonferroni).

    Args:
      false_positives: number of observations without the unit above the threshold.
      negatives: number of observations without the unit, > 0.
      false_negatives: number of observations with the unit at or below the threshold.
      positives: number of observations with the unit, > 0.
      confidence: joint, in (0, 1).

    Returns:
      mu in units of the standard deviation; zero or less if the threshold does not distinguish them.

    Source: Nasr et al. 2023, arXiv:2302.07956, section 4; Dong et al. 2022, arXiv:1905.02383, section 2.2.
    """
    each = (1 + confidence) / 2
    false_positive_rate = clopper_pearson_upper(false_positives, negatives, each)
    false_negative_rate = clopper_pearson_upper(false_negatives, positives, each)
    return float(special.ndtri(1 - false_positive_rate) - special.ndtri(false_negative_rate))


def one_run_p_value(epsilon: float, *, canaries: int, guesses: int, correct: int, delta: float) -> float:
    """Upper bound on the probability of at least `correct` correct guesses about one (epsilon, delta)-private run.

    Args:
      epsilon: >= 0.
      canaries: m, each included independently with probability 1/2.
      guesses: r <= m, a number fixed before anything is seen; there is no guess about the other canaries.
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
    """Lower confidence bound on epsilon: every smaller epsilon has a p-value of at most 1 - confidence."""

    def excess(value: float) -> float:
        p = one_run_p_value(value, canaries=canaries, guesses=guesses, correct=correct, delta=delta)
        return p - (1 - confidence)

    return _first_root(excess)


def _first_root(excess: Callable[[float], float]) -> float:
    """Smallest root at which a function rises above zero; a grid search makes sure that it is the first one."""
    for k in range(round(MOST_EPSILON / GRID)):
        if excess((k + 1) * GRID) > 0:
            low = k * GRID
            return 0.0 if k == 0 and excess(0.0) >= 0 else float(brentq(excess, low, low + GRID, xtol=1e-6))
    return MOST_EPSILON


def chi_square_interval(degrees: int, confidence: float) -> tuple[float, float]:
    """Two-sided interval, around 1, of a chi-square variable divided by its degrees of freedom."""
    low, high = stats.chi2.interval(confidence, degrees)
    return float(low) / degrees, float(high) / degrees
