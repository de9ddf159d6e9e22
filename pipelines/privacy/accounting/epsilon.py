"""Epsilon of a plan by three independent accountants, or by the one that knows its mechanism.

The guarantee is the PLD accountant's; RDP (an upper bound by another route) and Opacus' PRV stand beside it so that a
bug in one of them shows. Opacus' GDP accountant is not offered: its central-limit approximation underestimates. Tree
aggregation is known to RDP alone, whose upper bound is then the guarantee.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from typing import Any

from pipelines.core.errors import UserError
from pipelines.privacy.accounting.prv import prv_epsilon
from pipelines.privacy.accounting.time_limit import time_limit
from pipelines.privacy.accounting.tree_epsilon import tree_epsilon, tree_event
from pipelines.privacy.mechanisms.poisson_gaussian import NeighboringRelation, PoissonGaussianMechanism, delta_round_off
from pipelines.privacy.mechanisms.tree import Mechanism, TreeMechanism

# Of the discretised privacy loss; halving the interval moves epsilon by less than 1e-4 at the test vectors. Little
# noise spreads the loss over tens of units, where a tenth as many points leave epsilon as it is to 1e-5.
PLD_INTERVAL, PLD_POINTS = 1e-4, 30_000
NEGLIGIBLE = 1e-6
"""Share of delta that its rounding may have: it moves epsilon by less than the discretisation adds to it."""
PRV_TIME_LIMIT_S = 20
NO_TREES = "does not account for tree aggregation"
NOT_INSTALLED, TOO_SLOW = "Opacus is not installed", "no answer within"
"""Why PRV may be silent on one machine and answer on another."""


@dataclass(frozen=True, kw_only=True)
class AccountantResult:
    """One accountant's epsilon.

    Attributes:
      accountant: PLD, RDP or PRV, with the library that computed it.
      version: of that library.
      epsilon: None where the accountant could not answer.
      remark: why not; empty otherwise.
    """

    accountant: str
    version: str
    epsilon: float | None
    remark: str = ""


def effective_noise_multiplier(plan: PoissonGaussianMechanism) -> float:
    """Noise multiplier of one step as a single Gaussian mechanism on one unit.

    Under adaptive clipping a step releases two Gaussians, the update (z_u) and the count of unclipped units, whose
    sensitivity is 1/2 (z_c = 2 count_stddev). Releasing both is one Gaussian with (z_u^-2 + z_c^-2)^-1/2.

    Source: Andrew et al. 2021, arXiv:1905.03871, theorem 1.
    """
    if plan.adaptive is None or plan.noise_multiplier == 0:
        return plan.noise_multiplier
    parts = (plan.update_noise_multiplier, 2 * plan.adaptive.count_stddev)
    return float(sum(part**-2 for part in parts) ** -0.5)


def dp_event(plan: Mechanism) -> Any:
    """The plan as a dp_accounting DpEvent: a self-composed Poisson-sampled Gaussian, or composed trees."""
    from dp_accounting import dp_event as events

    if isinstance(plan, TreeMechanism):
        return tree_event(plan)
    step = events.GaussianDpEvent(effective_noise_multiplier(plan))
    return events.SelfComposedDpEvent(events.PoissonSampledDpEvent(plan.sampling_probability, step), plan.steps)


def neighbouring(relation: NeighboringRelation) -> Any:
    """The relation as dp_accounting names it."""
    import dp_accounting

    return {
        NeighboringRelation.ADD_OR_REMOVE_ONE: dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
        NeighboringRelation.REPLACE_SPECIAL: dp_accounting.NeighboringRelation.REPLACE_SPECIAL,
    }[relation]


def epsilon(plan: Mechanism) -> float:
    """Epsilon of the plan at its delta, by dp-accounting's privacy loss distributions (add-or-remove-one).

    Tree aggregation's is by Renyi differential privacy (zero-out). Zero steps touch no data and have epsilon 0.

    Raises:
      UserError: the plan adds no noise.

    Source: Doroshenko et al. 2022, arXiv:2207.04380, as implemented in dp-accounting.
    """
    if isinstance(plan, TreeMechanism):
        return tree_epsilon(plan)
    if plan.steps == 0:
        return 0.0
    return _library_epsilon(_sigma(plan), plan.sampling_probability, plan.steps, plan.delta)


def composed_epsilon(plans: Sequence[PoissonGaussianMechanism]) -> float:
    """Epsilon of mechanisms that all ran on the same units, at the delta of the first; of one plan, its `epsilon`.

    Raises:
      UserError: a plan adds no noise.
    """
    from dp_accounting.pld import privacy_loss_distribution

    first, *others = plans
    if not others:
        return epsilon(first)
    settings = [(_sigma(plan), plan.sampling_probability, plan.steps) for plan in plans]
    interval = max(loss_interval(sigma, q) for sigma, q, _ in settings)
    losses = [
        privacy_loss_distribution.from_gaussian_mechanism(
            sigma, sampling_prob=q, value_discretization_interval=interval
        ).self_compose(steps)
        for sigma, q, steps in settings
    ]
    total = reduce(lambda one, other: one.compose(other), losses)
    return float(total.get_epsilon_for_delta(sure_delta(first.delta, sum(steps for _, _, steps in settings))))


def quick_epsilon(plan: Mechanism) -> float:
    """The same to rounding, up to a hundred times faster: for searches and progress, never for a guarantee.

    Args:
      plan: what ran, or would run.

    Raises:
      UserError: the plan adds no noise.
    """
    if isinstance(plan, TreeMechanism):
        return tree_epsilon(plan)  # quick as it is
    if plan.steps == 0:
        return 0.0
    return _array_epsilon(_sigma(plan), plan.sampling_probability, plan.steps, plan.delta)


def _sigma(plan: PoissonGaussianMechanism) -> float:
    if plan.noise_multiplier == 0:
        raise UserError("privacy.noise_multiplier=0 gives no finite epsilon; give a positive value")
    return effective_noise_multiplier(plan)


def loss_interval(sigma: float, q: float) -> float:
    """Grid of the discretised privacy loss of one step with noise multiplier `sigma` and sampling probability `q`."""
    from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, GaussianPrivacyLoss

    loss = GaussianPrivacyLoss(sigma, sampling_prob=q, adjacency_type=AdjacencyType.REMOVE)
    bounds = loss.connect_dots_bounds()
    return max(PLD_INTERVAL, float(bounds.epsilon_upper - bounds.epsilon_lower) / PLD_POINTS)


def sure_delta(delta: float, steps: int) -> float:
    """The delta to ask a privacy loss distribution for, so that its rounding cannot make epsilon too low.

    It is delta itself unless many steps meet a tiny delta: rounding by less than `NEGLIGIBLE` of it is let be.

    Args:
      delta: at least `least_delta` of the steps.
      steps: that were composed, of all mechanisms together.
    """
    return delta - max(0.0, delta_round_off(steps) - NEGLIGIBLE * delta)


@lru_cache(maxsize=1024)
def _library_epsilon(sigma: float, q: float, steps: int, delta: float) -> float:
    from dp_accounting.pld import privacy_loss_distribution

    one_step = privacy_loss_distribution.from_gaussian_mechanism(
        sigma, sampling_prob=q, value_discretization_interval=loss_interval(sigma, q)
    )
    return float(one_step.self_compose(steps).get_epsilon_for_delta(sure_delta(delta, steps)))


@lru_cache(maxsize=4096)
def _array_epsilon(sigma: float, q: float, steps: int, delta: float) -> float:
    from pipelines.privacy.accounting.pld import step_losses

    losses = step_losses(sigma, q, loss_interval(sigma, q))
    return max(direction.epsilon(steps, sure_delta(delta, steps)) for direction in losses)


def rdp_epsilon(plan: PoissonGaussianMechanism) -> float:
    """Epsilon of the plan by Renyi differential privacy; an upper bound that PLD should not exceed.

    Source: Mironov et al. 2019, arXiv:1908.10530, as implemented in dp-accounting.
    """
    return float(renyi(plan).get_epsilon(plan.delta))


@lru_cache(maxsize=256)
def renyi(plan: Mechanism) -> Any:
    """A `dp_accounting` RdpAccountant that holds the plan and nothing else: to be asked, never to be composed further.

    Its curve, a quarter of a second's work, serves everybody who converts it: accountant_results, groups and sweeps.
    """
    from dp_accounting.rdp import RdpAccountant

    return RdpAccountant(neighboring_relation=neighbouring(plan.relation)).compose(dp_event(plan))


def accountant_of(plan: Mechanism) -> str:
    """Which accountant's epsilon is the guarantee."""
    return "dp-accounting RDP" if isinstance(plan, TreeMechanism) else "dp-accounting PLD"


@lru_cache(maxsize=256)
def accountant_results(plan: Mechanism) -> tuple[AccountantResult, ...]:
    """All accountants on one plan, the guarantee's own first: PLD, or RDP for tree aggregation."""
    library = version("dp-accounting")
    found = [AccountantResult(accountant=accountant_of(plan), version=library, epsilon=epsilon(plan))]
    if plan.steps == 0:
        return tuple(found)
    if isinstance(plan, TreeMechanism):
        others = (("dp-accounting PLD", library), ("Opacus PRV", ""))
        return (*found, *(AccountantResult(accountant=a, version=v, epsilon=None, remark=NO_TREES) for a, v in others))
    found.append(AccountantResult(accountant="dp-accounting RDP", version=library, epsilon=rdp_epsilon(plan)))
    found.append(_prv_result(plan))
    return tuple(found)


def _prv_result(plan: PoissonGaussianMechanism) -> AccountantResult:
    value, remark = None, ""
    try:
        opacus = version("opacus")
        with time_limit(PRV_TIME_LIMIT_S):
            value = prv_epsilon(
                sigma=effective_noise_multiplier(plan),
                q=plan.sampling_probability,
                steps=plan.steps,
                delta=plan.delta,
            )
        if not isfinite(value):
            value, remark = None, f"failed: its epsilon is {value}"
    except PackageNotFoundError:
        opacus, remark = "", NOT_INSTALLED
    except TimeoutError:
        remark = f"{TOO_SLOW} {PRV_TIME_LIMIT_S} s of computing"
    except (ValueError, RuntimeError, ArithmeticError, MemoryError) as error:
        remark = f"failed: {error}".splitlines()[0]
    return AccountantResult(accountant="Opacus PRV", version=opacus, epsilon=value, remark=remark)
