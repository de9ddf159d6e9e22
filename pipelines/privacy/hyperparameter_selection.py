"""What it costs to choose among the private runs of a sweep, or to publish all of them.

Each run's epsilon holds for that run alone. Publishing the best of several runs uses the data several times. The
epsilons of several runs compose only if they hide the same units. Every partition draws other simulated users: the
examples of one user in one run belong to many users in another. Then no user-level epsilon of both runs follows.

Source: Papernot & Steinke 2022, arXiv:2110.03620: theorem 6 (Poisson) and theorem 2 (geometric).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np
from dp_accounting.dp_event import DpEvent, RepeatAndSelectDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from pipelines.core.errors import UserError
from pipelines.privacy.accounting.epsilon import loss_interval, neighbouring, renyi, sure_delta
from pipelines.privacy.guarantee import PrivacyGuarantee
from pipelines.privacy.mechanisms.base import Mechanism, NeighboringRelation, PrivacyUnit, least_delta
from pipelines.privacy.rounding import rounded_up

SHOWN = 12  # characters of a fingerprint
GEOMETRIC, POISSON = 1.0, inf  # the shapes' names in `RepeatAndSelectDpEvent`


@dataclass(frozen=True, kw_only=True)
class PrivateRun:
    """A run and its units.

    Attributes:
      guarantee: of the steps that ran.
      division: fingerprint of the division of the data among simulated users, equal only for equal users; empty if the
        units come from the data (examples and natural users).
    """

    guarantee: PrivacyGuarantee
    division: str = ""


@dataclass(frozen=True, kw_only=True)
class ChoosingCost:
    """What the private runs of a sweep cost together, in epsilons at one delta.

    Attributes:
      unit, relation: of all these runs.
      delta: of every epsilon here.
      runs: number of runs; each seed is a run.
      single: the largest epsilon of one run.
      select_best: of publishing only the best of a Poisson number of runs, `runs` on average, by RDP; None for one
        run, because there is nothing to choose.
      select_best_geometric: of a geometric number with the same mean.
      publish_all: of publishing all of them, and thus of any choice among exactly these. It does not bound the two
        above, because their number of runs may be larger. They exceed it if one setting is much weaker than the others.
      accountant: of `publish_all`.
      simulated: whether noise or samples of a run came from a known seed, so that nothing is protected.
      division: of these runs, if the runs of this unit divide the data in several ways; then no bound holds for all of
        them together. None if they share one division.
    """

    unit: PrivacyUnit
    relation: NeighboringRelation
    delta: float
    runs: int
    single: float
    select_best: float | None
    select_best_geometric: float | None
    publish_all: float
    accountant: str
    simulated: bool
    division: str | None = None


def choosing_costs(runs: Sequence[PrivateRun]) -> list[ChoosingCost]:
    """Accounts for choosing, for each unit, relation and division at each delta among its runs.

    A run without steps used no data and does not count. A delta is left out if the plan of another run could not have
    it, because it is not below 1/population or is lost in the rounding of the steps.
    """
    groups: dict[tuple[PrivacyUnit, NeighboringRelation, str], list[PrivacyGuarantee]] = {}
    for run in runs:
        plan = run.guarantee.executed
        if plan.steps:
            groups.setdefault((plan.unit, plan.relation, run.division), []).append(run.guarantee)
    divided = {unit for unit, _, _ in groups if len({group[2] for group in groups if group[0] == unit}) > 1}
    return [
        replace(_cost(found, delta), division=division if unit in divided else None)
        for (unit, _, division), found in sorted(groups.items())
        for delta in sorted({each.executed.delta for each in found}, reverse=True)
        if all(_could_have(each.executed, delta) for each in found)
    ]


def _could_have(plan: Mechanism, delta: float) -> bool:
    try:
        replace(plan, delta=delta)
    except UserError:
        return False
    return True


def cost_metrics(costs: Sequence[ChoosingCost]) -> dict[str, float]:
    """The metrics of a sweep's parent; the name holds unit, relation or delta if there are several of them.

    A unit whose runs divide the data in several ways has no metric. `select_best` is not a metric: its theorem needs a
    random number of runs, but a sweep runs exactly what its user listed.
    """
    found = {}
    for cost in costs:
        if cost.division is not None:
            continue
        name = "".join(
            f"_{value:g}" if isinstance(value, float) else f"_{value}"
            for field in ("unit", "relation", "delta")
            if len({getattr(other, field) for other in costs}) > 1
            for value in [getattr(cost, field)]
        )
        found[f"privacy/epsilon_publish_all{name}"] = cost.publish_all
    return found


def _cost(runs: Sequence[PrivacyGuarantee], delta: float) -> ChoosingCost:
    plans, first = [run.executed for run in runs], runs[0].executed
    relation = neighbouring(first.relation)
    single = max(replace(plan, delta=delta).epsilon() for plan in set(plans))
    best = geometric = None
    if len(runs) > 1:  # a Poisson number with a mean of one is 2 or more with a probability of a quarter
        best, geometric = (_select_best(plans, shape, relation, delta) for shape in (POISSON, GEOMETRIC))
    together, accountant = _publish_all(plans, relation, delta)
    return ChoosingCost(
        unit=first.unit, relation=first.relation, delta=delta, runs=len(runs), single=single, select_best=best,
        select_best_geometric=geometric, publish_all=together, accountant=accountant,
        simulated=any(run.simulated for run in runs),
    )  # fmt: skip


def _select_best(plans: Sequence[Mechanism], shape: float, relation: NeighboringRelation, delta: float) -> float:
    """Each repetition runs one of the settings, so at every order its divergence is at most the largest of theirs."""
    accountant = _WorstOfAccountant(neighboring_relation=relation)
    any_setting = WorstOfDpEvent(tuple(set(plans)))
    accountant.compose(RepeatAndSelectDpEvent(any_setting, mean=len(plans), shape=shape))
    return float(accountant.get_epsilon(delta))


def _publish_all(plans: Sequence[Mechanism], relation: NeighboringRelation, delta: float) -> tuple[float, str]:
    """Epsilon of all events, and the accountant: PLD if it knows them and delta exceeds its rounding, else RDP."""
    steps = sum(plan.steps for plan in plans)
    known = delta >= least_delta(steps) and all(
        PLDAccountant(relation).supports(plan.dp_event()) for plan in set(plans)
    )
    if known:
        known_as = [plan.composition for plan in plans if plan.composition is not None]
        grids = [loss_interval(one.noise_multiplier, one.sampling_probability) for one in known_as]
        accountant = PLDAccountant(relation, value_discretization_interval=max(grids))
    else:
        accountant = RdpAccountant(neighboring_relation=relation)
    for plan, count in Counter(plans).items():
        accountant.compose(plan.dp_event(), count)
    together = accountant.get_epsilon(sure_delta(delta, steps) if known else delta)
    return float(together), "PLD" if known else "RDP"


@dataclass(frozen=True)
class WorstOfDpEvent(DpEvent):
    """One of several plans, without saying which."""

    plans: tuple[Mechanism, ...]


class _WorstOfAccountant(RdpAccountant):
    """RDP with `WorstOfDpEvent`: at each order the largest divergence of its plans, which share this relation."""

    def _maybe_compose(self, event: Any, count: int, do_compose: bool) -> Any:
        if not isinstance(event, WorstOfDpEvent):
            return super()._maybe_compose(event, count, do_compose)
        if do_compose:
            self._rdp: Any = self._rdp + count * np.max([renyi(plan).rdp for plan in event.plans], axis=0)
        return None


def choosing_statement(costs: Sequence[ChoosingCost], *, unprotected: int, unknown: int) -> str:
    """Returns Markdown that says what each way of publishing a sweep costs, and what that assumes.

    Args:
      costs: from `choosing_costs`.
      unprotected: number of runs that are not private, and have no guarantee.
      unknown: number of private runs that left no guarantee.
    """
    blocks = ["# What choosing among these runs costs"]
    tables = [cost for cost in costs if cost.division is None or cost.runs > 1]
    if refusal := no_common_bound(costs):
        apart = " Each group below that names a partition is about the runs of this partition; do not add them up."
        blocks.append(f"{refusal}{apart if any(cost.division for cost in tables) else ''}")
    blocks += [_table(cost) for cost in tables]
    if unknown:
        blocks.append(
            f"**No bound can be given:** {_runs(unknown)} left no guarantee (killed, or contradicted by the sampler's "
            "record). What they spent is unknown."
        )
    if tables:
        blocks.append(_presumptions(tables))
    if unprotected:
        blocks.append(
            f"**Not private:** {_runs(unprotected)} of this sweep used the same data without any protection. The "
            "numbers above do not count them. No epsilon covers publishing such a run or its curve, or a choice that "
            "compares other runs with it."
        )
    return "\n\n".join(blocks) + "\n"


def no_common_bound(costs: Sequence[ChoosingCost]) -> str:
    """Says why no bound holds for all runs of a unit, and what would give one; empty if they share their units."""
    divided = {(cost.division, cost.relation): cost for cost in costs if cost.division is not None}
    if not divided:
        return ""
    runs, ways = sum(cost.runs for cost in divided.values()), len({division for division, _ in divided})
    unit = next(iter(divided.values())).unit
    return (
        f"No common bound can be given for the {_runs(runs)} that protect {unit}s: they divide the data among "
        f"different {unit}s, in {ways} ways. The data of one {unit} in one run belongs to many {unit}s in another. Use "
        "the same partition in all runs: set partition.seed, keep the partition's settings and sweep something else, "
        "or use partition=natural."
    )


def _table(cost: ChoosingCost) -> str:
    """The epsilons of one group, each with what is published."""
    heading = f"{_runs(cost.runs).capitalize()} that protect{'s' * (cost.runs == 1)} {cost.unit}s"
    partition = f", partition {cost.division[:SHOWN]}" if cost.division else ""
    single = f"at most {rounded_up(cost.single)}"
    rows = [("one run that was chosen before any of them started", single, cost.accountant)]
    if cost.select_best is not None and cost.select_best_geometric is not None:
        rows += [
            (
                f"only the best of a random number of runs: Poisson with mean {cost.runs}",
                rounded_up(cost.select_best),
                "RDP",
            ),
            (f"the same: geometric with mean {cost.runs}", rounded_up(cost.select_best_geometric), "RDP"),
        ]
    everything = (
        "all, which is this one run" if cost.runs == 1 else f"all {cost.runs}, or any choice among exactly these"
    )
    rows.append((everything, rounded_up(cost.publish_all), cost.accountant))
    return (
        f"## {heading} ({str(cost.relation).replace('_', ' ')}){partition}\n\n"
        + (SIMULATED if cost.simulated else "")
        + f"| what is published | epsilon at delta {cost.delta:g} | accountant |\n|---|---|---|\n"
        + "\n".join(f"| {' | '.join(row)} |" for row in rows)
        + (f"\n\n{DEARER.format(cost.runs)}" if _is_dearer(cost) else "")
    )


def _is_dearer(cost: ChoosingCost) -> bool:
    """Whether the best of a random number of runs costs more than all runs, in the digits that the table shows."""
    return cost.select_best is not None and float(rounded_up(cost.select_best)) > float(rounded_up(cost.publish_all))


SIMULATED = "**Simulated:** noise came from a known seed. With secret noise the cost would be:\n\n"
DEARER = (
    "Here the best of a random number costs more than all {0}. There are three reasons: a random number of runs may be "
    "larger, each of these runs is counted as if it had the weakest setting of the list, and RDP is looser. The "
    "smaller epsilon does not cover the best of a random number. It does cover the best of exactly these {0}."
)
THEOREM = (
    "The rows for the best run rest on a theorem (Papernot & Steinke 2022, arXiv:2110.03620). It needs a *random* "
    "number of runs, drawn in secret from that distribution. Each run takes a setting drawn from the same list, and "
    "nothing about the other runs is published. This sweep is a fixed grid: only the last row covers publishing its "
    "best run. Only the last row covers an attacker who sees all of these runs. A seed counts as a run. The score that "
    "decides must come from data that need no protection, such as a public test split. "
)


def _presumptions(tables: Sequence[ChoosingCost]) -> str:
    theorem = THEOREM if any(cost.select_best is not None for cost in tables) else ""
    same = " if they protect the same users" if any(cost.division is not None for cost in tables) else ""
    return (
        f"{theorem}Other runs on the same data add to this cost{same}: runs outside this sweep, and runs in another "
        "group above."
    )


def _runs(count: int) -> str:
    return "one run" if count == 1 else f"{count} runs"
