"""The least noise that meets a target epsilon."""

from dataclasses import replace
from functools import lru_cache
from math import ceil, exp, log

from pipelines.errors import UserError
from pipelines.privacy.accounting import PLD_INTERVAL, epsilon
from pipelines.privacy.plan import MechanismPlan

LEAST_NOISE, MOST_NOISE = 0.2, 1000.0
COARSE_INTERVAL = 1e-3
DECIMALS = 10_000


@lru_cache(maxsize=256)
def calibrate(plan: MechanismPlan, target: float) -> MechanismPlan:
    """Returns the plan with the smallest noise multiplier whose epsilon does not exceed the target.

    The multiplier is rounded up to 4 decimals, so the epsilon that comes out is at most the target.

    Args:
      plan: its own noise multiplier is ignored.
      target: epsilon, > 0.

    Raises:
      UserError: no multiplier in [0.2, 1000] gives that epsilon.
    """
    if plan.adaptive is not None:
        # Adaptive clipping shares the same total noise between update and count, which only the answer must allow.
        return replace(calibrate(replace(plan, adaptive=None), target), adaptive=plan.adaptive)
    # A coarse discretisation finds the neighbourhood at a tenth of the price. It overstates epsilon, so the answer
    # lies at or below its root.
    coarse = _root(plan, target, *_bracket(plan, target), COARSE_INTERVAL)
    low = coarse / 1.02
    while epsilon(_with_noise(plan, low)) <= target:
        low /= 1.1
    root = _root(plan, target, low, coarse * 1.001, PLD_INTERVAL)
    sigma = ceil(root * DECIMALS) / DECIMALS
    while epsilon(_with_noise(plan, sigma)) > target:
        sigma += 1 / DECIMALS
    return _with_noise(plan, round(sigma, 4))


def _root(plan: MechanismPlan, target: float, low: float, high: float, interval: float) -> float:
    """The noise multiplier that meets the target, searched where the curve is nearly straight: on logarithmic axes."""
    from scipy.optimize import brentq

    def excess(log_sigma: float) -> float:
        # An epsilon of exactly zero has no logarithm; it occurs far below any target only.
        return log(max(epsilon(_with_noise(plan, exp(log_sigma)), interval), 1e-12)) - log(target)

    return float(exp(brentq(excess, log(low), log(high), xtol=1e-5)))


def _bracket(plan: MechanismPlan, target: float) -> tuple[float, float]:
    """Two noise multipliers with epsilon above and at most the target."""

    def meets(sigma: float) -> bool:
        return epsilon(_with_noise(plan, sigma), COARSE_INTERVAL) <= target

    low = high = 1.0
    while not meets(high):
        if high >= MOST_NOISE:
            raise UserError(
                f"privacy.epsilon={target:g} cannot be reached in {plan.steps} steps at sampling probability "
                f"{plan.sampling_probability:g} with a noise multiplier up to {MOST_NOISE:g}; take fewer steps, "
                "smaller samples or a larger epsilon"
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


def _with_noise(plan: MechanismPlan, sigma: float) -> MechanismPlan:
    return replace(plan, noise_multiplier=sigma)
