"""Converts a guarantee for one unit to groups of units; the result is never a run's own epsilon."""

from functools import lru_cache
from math import expm1, log

from pipelines.privacy.accounting.epsilon import renyi
from pipelines.privacy.mechanisms.base import Mechanism

LARGEST = 50.0  # largest epsilon of one unit that is tried; e^50 promises nothing
STEP = 0.1
HALVINGS = 30


@lru_cache(maxsize=256)
def group_epsilon(plan: Mechanism, members: int) -> float | None:
    """Epsilon at the plan's delta for `members` units that are all present or all absent.

    If one unit has (e, d), then k units have (k e, d (1 + exp(e) + ... + exp((k-1) e))). A mechanism has a d for every
    e. This function takes a small e whose converted d is the plan's delta. It uses the curve of RDP, which reaches any
    d.

    Args:
      plan: what ran.
      members: k, >= 1; 1 gives the epsilon by RDP.

    Returns:
      The epsilon, an upper bound; None if every e up to `LARGEST` needs a larger delta.

    Source: Vadhan 2017, "The complexity of differential privacy", lemma 2.2, with the sum of its proof kept.
    """
    if plan.steps == 0:
        return 0.0
    curve = renyi(plan)

    def suffices(one: float) -> bool:
        delta = float(curve.get_delta(one))
        return delta <= 0 or log(delta) + _log_sum(one, members) <= log(plan.delta)

    low, high = 0.0, STEP
    while not suffices(high):
        low, high = high, high + STEP
        if high > LARGEST:
            return None
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return members * high


def _log_sum(one: float, members: int) -> float:
    """log(1 + exp(one) + ... + exp((members - 1) one)) for one > 0, as the sum of a geometric series."""
    return (members - 1) * one + log(-expm1(-members * one)) - log(-expm1(-one))
