"""Epsilon of a mechanism by three independent accountants, or by the only one that knows it.

The PLD accountant gives the epsilon of a mechanism that is equivalent to a composition of Poisson-subsampled Gaussians.
RDP (an upper bound by another method) and Opacus' PRV check it, so that a bug in one of them shows. Opacus' GDP
accountant is not used, because its central-limit approximation underestimates epsilon. Any other mechanism gets the
upper bound of RDP.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from typing import Any

from pipelines.privacy.accounting.prv import prv_epsilon
from pipelines.privacy.accounting.time_limit import time_limit
from pipelines.privacy.mechanisms.base import (
    Composition,
    Mechanism,
    NeighboringRelation,
    delta_round_off,
    require_noise,
)

# Grid of the discretised privacy loss. Halving the interval changes epsilon by less than 1e-4 at the test vectors. With
# little noise the loss spans tens of units; there a tenth as many points give the same epsilon to 1e-5.
PLD_INTERVAL, PLD_POINTS = 1e-4, 30_000
NEGLIGIBLE = 1e-6
"""Share of delta that rounding may reach: its effect on epsilon is less than what the discretisation adds."""
PRV_TIME_LIMIT_S = 20
UNKNOWN = "does not account for this mechanism"
PLD, RDP, PRV = "dp-accounting PLD", "dp-accounting RDP", "Opacus PRV"
NOT_INSTALLED, TOO_SLOW = "Opacus is not installed", "no answer within"
"""Reasons why PRV may give no answer on one machine and an answer on another."""


@dataclass(frozen=True, kw_only=True)
class AccountantResult:
    """One accountant's epsilon.

    Attributes:
      accountant: PLD, RDP or PRV, after the name of its library.
      version: of that library.
      epsilon: None where the accountant could not answer.
      remark: the reason if there is no epsilon; empty otherwise.
    """

    accountant: str
    version: str
    epsilon: float | None
    remark: str = ""


def composition_event(composition: Composition) -> Any:
    """A composition as a dp_accounting DpEvent: a self-composed Poisson-sampled Gaussian."""
    from dp_accounting import dp_event as events

    step = events.GaussianDpEvent(composition.noise_multiplier)
    return events.SelfComposedDpEvent(
        events.PoissonSampledDpEvent(composition.sampling_probability, step), composition.steps
    )


def neighbouring(relation: NeighboringRelation) -> Any:
    """The relation as a value of dp_accounting."""
    import dp_accounting

    return {
        NeighboringRelation.ADD_OR_REMOVE_ONE: dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
        NeighboringRelation.REPLACE_SPECIAL: dp_accounting.NeighboringRelation.REPLACE_SPECIAL,
    }[relation]


def pld_epsilon(composition: Composition, delta: float) -> float:
    """Epsilon of a composition by dp-accounting's privacy loss distributions (add-or-remove-one).

    Raises:
      UserError: it adds no noise.

    Source: Doroshenko et al. 2022, arXiv:2207.04380, as implemented in dp-accounting.
    """
    if composition.steps == 0:
        return 0.0
    require_noise(composition.noise_multiplier)
    sigma, q = composition.noise_multiplier, composition.sampling_probability
    return _library_epsilon(sigma, q, composition.steps, delta)


def composed_epsilon(compositions: Sequence[Composition], delta: float) -> float:
    """Epsilon at delta of several compositions on the same units; for a single one, its `pld_epsilon`."""
    from dp_accounting.pld import privacy_loss_distribution

    first, *others = compositions
    if not others:
        return pld_epsilon(first, delta)
    for one in compositions:
        require_noise(one.noise_multiplier)
    interval = max(loss_interval(one.noise_multiplier, one.sampling_probability) for one in compositions)
    losses = [
        privacy_loss_distribution.from_gaussian_mechanism(
            one.noise_multiplier, sampling_prob=one.sampling_probability, value_discretization_interval=interval
        ).self_compose(one.steps)
        for one in compositions
    ]
    total = reduce(lambda one, other: one.compose(other), losses)
    return float(total.get_epsilon_for_delta(sure_delta(delta, sum(one.steps for one in compositions))))


def quick_pld_epsilon(composition: Composition, delta: float) -> float:
    """The same epsilon up to rounding, up to a hundred times faster: for searches and progress, never for a guarantee.

    Args:
      composition: planned or executed.
      delta: of the guarantee.

    Raises:
      UserError: it adds no noise.
    """
    if composition.steps == 0:
        return 0.0
    require_noise(composition.noise_multiplier)
    return _array_epsilon(composition.noise_multiplier, composition.sampling_probability, composition.steps, delta)


def loss_interval(sigma: float, q: float) -> float:
    """Grid of the discretised privacy loss of one step with noise multiplier `sigma` and sampling probability `q`."""
    from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, GaussianPrivacyLoss

    loss = GaussianPrivacyLoss(sigma, sampling_prob=q, adjacency_type=AdjacencyType.REMOVE)
    bounds = loss.connect_dots_bounds()
    return max(PLD_INTERVAL, float(bounds.epsilon_upper - bounds.epsilon_lower) / PLD_POINTS)


def sure_delta(delta: float, steps: int) -> float:
    """The delta for a query to a privacy loss distribution, so that rounding cannot make epsilon too low.

    It equals delta if the rounding error is at most a share `NEGLIGIBLE` of delta. It is smaller only if a tiny delta
    meets many steps.

    Args:
      delta: at least `least_delta` of the steps.
      steps: number of composed steps, over all mechanisms.
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


def rdp_epsilon(mechanism: Mechanism) -> float:
    """Epsilon by Renyi differential privacy, an upper bound; 0 for zero steps.

    Source: Mironov et al. 2019, arXiv:1908.10530, as implemented in dp-accounting.
    """
    return float(renyi(mechanism).get_epsilon(mechanism.delta)) if mechanism.steps else 0.0


@lru_cache(maxsize=256)
def renyi(mechanism: Mechanism) -> Any:
    """A `dp_accounting` RdpAccountant that holds only this mechanism. Do not compose anything else into it.

    Its curve takes a quarter of a second to compute. Results, groups and sweeps share it.
    """
    from dp_accounting.rdp import RdpAccountant

    return RdpAccountant(neighboring_relation=neighbouring(mechanism.relation)).compose(mechanism.dp_event())


def accountant_of(mechanism: Mechanism) -> str:
    """The accountant whose epsilon is the guarantee."""
    return RDP if mechanism.composition is None else PLD


@lru_cache(maxsize=256)
def accountant_results(mechanism: Mechanism) -> tuple[AccountantResult, ...]:
    """Results of all accountants. The first is the guarantee's: PLD, or RDP if PLD does not know the mechanism."""
    library = version("dp-accounting")
    found = [AccountantResult(accountant=accountant_of(mechanism), version=library, epsilon=mechanism.epsilon())]
    if mechanism.steps == 0:
        return tuple(found)
    if mechanism.composition is None:
        others = ((PLD, library), (PRV, ""))
        return (*found, *(AccountantResult(accountant=a, version=v, epsilon=None, remark=UNKNOWN) for a, v in others))
    found.append(AccountantResult(accountant=RDP, version=library, epsilon=rdp_epsilon(mechanism)))
    found.append(_prv_result(mechanism.composition, mechanism.delta))
    return tuple(found)


def _prv_result(composition: Composition, delta: float) -> AccountantResult:
    value, remark = None, ""
    try:
        opacus = version("opacus")
        with time_limit(PRV_TIME_LIMIT_S):
            value = prv_epsilon(
                sigma=composition.noise_multiplier,
                q=composition.sampling_probability,
                steps=composition.steps,
                delta=delta,
            )
        if not isfinite(value):
            value, remark = None, f"failed: its epsilon is {value}"
    except PackageNotFoundError:
        opacus, remark = "", NOT_INSTALLED
    except TimeoutError:
        remark = f"{TOO_SLOW} {PRV_TIME_LIMIT_S} s of computing"
    except (ValueError, RuntimeError, ArithmeticError, MemoryError) as error:
        remark = f"failed: {error}".splitlines()[0]
    return AccountantResult(accountant=PRV, version=opacus, epsilon=value, remark=remark)
