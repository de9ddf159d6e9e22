"""The least noise that meets a target epsilon."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from math import ceil, exp, log
from typing import TypeVar

from pipelines.core.errors import UserError
from pipelines.privacy.mechanisms.base import Mechanism

LEAST_NOISE, MOST_NOISE = 0.2, 1000.0
COARSENESS = 10
DECIMALS = 10_000

AnyMechanism = TypeVar("AnyMechanism", bound=Mechanism)


@lru_cache(maxsize=256)
def calibrate(plan: AnyMechanism, target: float) -> AnyMechanism:
    """Returns the plan with the smallest noise multiplier whose epsilon does not exceed the target.

    The multiplier is rounded up to 4 decimals, so the resulting epsilon is at most the target.

    Args:
      plan: its own noise multiplier is ignored.
      target: epsilon, > 0.

    Raises:
      UserError: no multiplier in [0.2, 1000] gives that epsilon.
    """
    if plan.adaptive is not None:
        # Adaptive clipping shares the same total noise between update and count. Only the result must allow that.
        shared = replace(calibrate(replace(plan, adaptive=None), target), adaptive=plan.adaptive)
        while shared.epsilon() > target:  # rounding makes the sum of both parts slightly less than the total
            shared = shared.with_noise(shared.noise_multiplier + 1 / DECIMALS)
        return shared
    # A coarse discretisation finds the neighbourhood at a tenth of the price.
    root = _root(plan, target, *_bracket(plan, target))
    if plan.composition is not None:  # else the accountant has no grid to refine
        root = _refined(plan, target, root)
    sigma = ceil(root * DECIMALS)
    while plan.with_noise((sigma - 1) / DECIMALS).quick_epsilon() <= target:
        sigma -= 1
    while plan.with_noise(sigma / DECIMALS).epsilon() > target:  # the accountant of the guarantee decides
        sigma += 1
    return plan.with_noise(sigma / DECIMALS)


def _root(plan: Mechanism, target: float, low: float, high: float) -> float:
    """The noise multiplier between two others that meets the target in the coarse discretisation."""
    from scipy.optimize import brentq

    return float(exp(brentq(_excess(plan, target, COARSENESS), log(low), log(high), xtol=1e-4)))


def _refined(plan: Mechanism, target: float, sigma: float) -> float:
    """The noise multiplier that meets the target, by secants from one near it."""
    from scipy.optimize import root_scalar

    excess, near = _excess(plan, target, 1), log(sigma)
    # Epsilon falls about as fast as the noise grows, or faster: the other point lies on the same side or close by.
    found = root_scalar(excess, method="secant", x0=near, x1=near + excess(near), xtol=1e-7)
    return float(exp(found.root))


def _excess(plan: Mechanism, target: float, coarseness: int) -> Callable[[float], float]:
    """Log of epsilon over the target, as a function of the log of the noise: nearly a straight line."""

    def excess(log_sigma: float) -> float:
        # An epsilon of exactly zero has no logarithm; it occurs far below any target only.
        return log(max(plan.with_noise(exp(log_sigma)).quick_epsilon(coarseness), 1e-12)) - log(target)

    return excess


def _bracket(plan: Mechanism, target: float) -> tuple[float, float]:
    """Two noise multipliers with epsilon above and at most the target."""

    def meets(sigma: float) -> bool:
        return plan.with_noise(sigma).quick_epsilon(COARSENESS) <= target

    low = high = 1.0
    while not meets(high):
        if high >= MOST_NOISE:
            raise UserError(
                f"privacy.epsilon={target:g} cannot be reached in {plan.steps} steps{_sampled(plan)} with a noise "
                f"multiplier up to {MOST_NOISE:g}; take fewer steps, smaller samples or a larger epsilon"
            )
        low, high = high, min(2 * high, MOST_NOISE)
    while low == high or meets(low):
        if low <= LEAST_NOISE:
            raise UserError(
                f"privacy.epsilon={target:g} needs a noise multiplier below {LEAST_NOISE:g}, where no protection is "
                "left; ask for a smaller epsilon, or train without privacy"
            )
        low, high = max(low / 2, LEAST_NOISE), low
    return low, high


def _sampled(plan: Mechanism) -> str:
    q = None if plan.composition is None else plan.composition.sampling_probability
    return "" if q is None else f" at sampling probability {q:g}"
