"""The least noise that meets a target epsilon."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from math import ceil, exp, log
from typing import TypeVar

from pipelines.core.errors import UserError
from pipelines.privacy.accounting.epsilon import epsilon, quick_epsilon
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism
from pipelines.privacy.mechanisms.tree import Mechanism, TreeMechanism

LEAST_NOISE, MOST_NOISE = 0.2, 1000.0
COARSENESS = 10
DECIMALS = 10_000

AnyPlan = TypeVar("AnyPlan", bound=Mechanism)


@lru_cache(maxsize=256)
def calibrate(plan: AnyPlan, target: float) -> AnyPlan:
    """Returns the plan with the smallest noise multiplier whose epsilon does not exceed the target.

    The multiplier is rounded up to 4 decimals, so the epsilon that comes out is at most the target.

    Args:
      plan: its own noise multiplier is ignored.
      target: epsilon, > 0.

    Raises:
      UserError: no multiplier in [0.2, 1000] gives that epsilon.
    """
    if isinstance(plan, PoissonGaussianMechanism) and plan.adaptive is not None:
        # Adaptive clipping shares the same total noise between update and count, which only the answer must allow.
        shared = replace(calibrate(replace(plan, adaptive=None), target), adaptive=plan.adaptive)
        while epsilon(shared) > target:  # the two parts add up to the total, less a rounding
            shared = _with_noise(shared, shared.noise_multiplier + 1 / DECIMALS)
        return shared
    # A coarse discretisation finds the neighbourhood at a tenth of the price.
    root = _root(plan, target, *_bracket(plan, target))
    if isinstance(plan, PoissonGaussianMechanism):  # the accountant of trees has no grid to refine
        root = _refined(plan, target, root)
    sigma = ceil(root * DECIMALS)
    while quick_epsilon(_with_noise(plan, (sigma - 1) / DECIMALS)) <= target:
        sigma -= 1
    while epsilon(_with_noise(plan, sigma / DECIMALS)) > target:  # the accountant of the guarantee has the last word
        sigma += 1
    return _with_noise(plan, sigma / DECIMALS)


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
        return log(max(quick_epsilon(_with_noise(plan, exp(log_sigma)), coarseness), 1e-12)) - log(target)

    return excess


def _bracket(plan: Mechanism, target: float) -> tuple[float, float]:
    """Two noise multipliers with epsilon above and at most the target."""

    def meets(sigma: float) -> bool:
        return quick_epsilon(_with_noise(plan, sigma), COARSENESS) <= target

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
    return "" if isinstance(plan, TreeMechanism) else f" at sampling probability {plan.sampling_probability:g}"


def _with_noise(plan: AnyPlan, sigma: float) -> AnyPlan:
    return replace(plan, noise_multiplier=sigma)
