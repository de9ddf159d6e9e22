"""The smallest noise multiplier that meets a target epsilon: dp-accounting's search, with quick epsilons.

With the library's own privacy loss distributions the same search takes 32 (27 to 40) times as long, 6 to 16 s of CPU
for the plan of a recipe: `python -m experiments.speed around --only account_examples account_library`.
"""

from dataclasses import replace
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING, TypeVar

from pipelines.core.errors import UserError
from pipelines.privacy.mechanisms.base import Mechanism

if TYPE_CHECKING:
    from dp_accounting.mechanism_calibration import BracketInterval

LEAST_NOISE, MOST_NOISE = 0.2, 1000.0
MIDDLE = 1.0
"""Start of the search. Below it the loss of very many steps is wide, so an unnecessary epsilon would be expensive."""
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
      ArithmeticError: the search finds no noise, because of rounding.
    """
    from dp_accounting.mechanism_calibration import NoOptimumFoundError, calibrate_dp_mechanism

    if plan.adaptive is not None:
        # Adaptive clipping shares the same total noise between update and count. Only the result must allow that.
        shared = replace(calibrate(replace(plan, adaptive=None), target), adaptive=plan.adaptive)
        while shared.epsilon() > target:  # rounding makes the sum of both parts slightly less than the total
            shared = shared.with_noise(shared.noise_multiplier + 1 / DECIMALS)
        return shared
    try:
        root = calibrate_dp_mechanism(
            _QuickAccountant, plan.with_noise, target, plan.delta, _bracket(plan, target), tol=1 / DECIMALS
        )
    except NoOptimumFoundError as error:
        raise ArithmeticError(f"the search for the noise found none ({error})") from None
    sigma = ceil(root * DECIMALS)
    while plan.with_noise((sigma - 1) / DECIMALS).quick_epsilon() <= target:
        sigma -= 1
    while plan.with_noise(sigma / DECIMALS).epsilon() > target:  # the accountant of the guarantee decides
        sigma += 1
    return plan.with_noise(sigma / DECIMALS)


class _QuickAccountant:
    """The part of dp-accounting's `PrivacyAccountant` that its search uses; the events are plans."""

    def __init__(self) -> None:
        from dp_accounting import NoOpDpEvent

        self.ledger = NoOpDpEvent()

    def compose(self, plan: Mechanism) -> "_QuickAccountant":
        self._plan = plan
        return self

    def get_epsilon(self, _: float) -> float:
        return self._plan.quick_epsilon()


def _bracket(plan: Mechanism, target: float) -> "BracketInterval":
    """The interval of the search, after a check that it contains a solution."""
    from dp_accounting.mechanism_calibration import ExplicitBracketInterval, LowerEndpointAndGuess

    def meets(sigma: float) -> bool:
        return plan.with_noise(sigma).quick_epsilon() <= target

    if not meets(MIDDLE):
        if not meets(MOST_NOISE):
            raise UserError(
                f"privacy.epsilon={target:g} cannot be reached in {plan.steps} steps{_sampled(plan)} with a noise "
                f"multiplier up to {MOST_NOISE:g}; take fewer steps, smaller samples or a larger epsilon"
            )
        return LowerEndpointAndGuess(MIDDLE, 2 * MIDDLE)
    if meets(LEAST_NOISE):
        raise UserError(
            f"privacy.epsilon={target:g} needs a noise multiplier below {LEAST_NOISE:g}, where no protection is "
            "left; ask for a smaller epsilon, or train without privacy"
        )
    return ExplicitBracketInterval(LEAST_NOISE, MIDDLE)


def _sampled(plan: Mechanism) -> str:
    q = None if plan.composition is None else plan.composition.sampling_probability
    return "" if q is None else f" at sampling probability {q:g}"
