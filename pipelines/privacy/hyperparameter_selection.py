"""What it costs to choose among the private runs of a sweep, or to publish all of them.

Each run's epsilon holds for that run alone. Whoever publishes the best of several has used the data several times.
Their epsilons compose only if they hide the same units. Simulated users are dealt anew with every partition: what one
of them holds in one run belongs to many in another, and no user-level epsilon of both follows.

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
    """A run with what its unit is.

    Attributes:
      guarantee: of the steps that ran.
      division: names the division of the data among simulated users, equal only for equal users; empty where units
        are the data's own: examples, and natural users.
    """

    guarantee: PrivacyGuarantee
    division: str = ""


@dataclass(frozen=True, kw_only=True)
class ChoosingCost:
    """What the private runs of a sweep cost together, in epsilons at one delta.

    Attributes:
      unit, relation: of all these runs.
      delta: of every epsilon here.
      runs: how many; each seed is a run.
      single: the largest epsilon of one run.
      select_best: of publishing only the best of a Poisson number of runs, `runs` on average, by RDP; None for one
        run, which leaves nothing to choose.
      select_best_geometric: of a geometric number with the same mean.
      publish_all: of publishing all of them, and thus any choice among exactly these. It does not bound the two
        above, whose number of runs may come out larger; they exceed it where one setting is much weaker than others.
      accountant: of `publish_all`.
      simulated: whether noise or samples of a run came from a known seed, so that nothing is protected.
      division: of these runs, where the runs of this unit divide the data in several ways: then nothing bounds all of
        them together. None where they share one.
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

    Runs that took no step touched no data and do not count. A delta that a plan of another run could not have is left
    out: not below 1/population, or lost in the rounding of its steps.
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
    """The metrics of a sweep's parent; a unit, relation or delta is in the name where there are several.

    Of a unit whose runs divide the data in several ways there are none. `select_best` is none: its theorem is about a
    random number of runs, and a sweep has as many as its user listed.
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
    if len(runs) > 1:  # with a mean of one a Poisson number is still 2 or more a quarter of the time
        best, geometric = (_select_best(plans, shape, relation, delta) for shape in (POISSON, GEOMETRIC))
    together, accountant = _publish_all(plans, relation, delta)
    return ChoosingCost(
        unit=first.unit, relation=first.relation, delta=delta, runs=len(runs), single=single, select_best=best,
        select_best_geometric=geometric, publish_all=together, accountant=accountant,
        simulated=any(run.simulated for run in runs),
    )  # fmt: skip


def _select_best(plans: Sequence[Mechanism], shape: float, relation: NeighboringRelation, delta: float) -> float:
    """Each repetition runs any of the settings, so it diverges at every order by no more than the worst of them."""
    accountant = _WorstOfAccountant(neighboring_relation=relation)
    any_setting = WorstOfDpEvent(tuple(set(plans)))
    accountant.compose(RepeatAndSelectDpEvent(any_setting, mean=len(plans), shape=shape))
    return float(accountant.get_epsilon(delta))


def _publish_all(plans: Sequence[Mechanism], relation: NeighboringRelation, delta: float) -> tuple[float, str]:
    """Epsilon of all events, and the accountant: PLD where it knows them and delta exceeds its rounding, else RDP."""
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
    """What one of several plans does, nobody knows which."""

    plans: tuple[Mechanism, ...]


class _WorstOfAccountant(RdpAccountant):
    """RDP that knows `WorstOfDpEvent`: at each order the largest divergence of its plans, all of this relation."""

    def _maybe_compose(self, event: Any, count: int, do_compose: bool) -> Any:
        if not isinstance(event, WorstOfDpEvent):
            return super()._maybe_compose(event, count, do_compose)
        if do_compose:
            self._rdp: Any = self._rdp + count * np.max([renyi(plan).rdp for plan in event.plans], axis=0)
        return None


def choosing_statement(costs: Sequence[ChoosingCost], *, unprotected: int, unknown: int) -> str:
    """Returns Markdown that says what each way of publishing a sweep costs, and what that presumes.

    Args:
      costs: from `choosing_costs`.
      unprotected: runs without any guarantee, because they are not private.
      unknown: private runs that left no guarantee.
    """
    blocks = ["# What choosing among these runs costs"]
    tables = [cost for cost in costs if cost.division is None or cost.runs > 1]
    if refusal := no_common_bound(costs):
        apart = " Groups that name a partition below hold for its runs alone; they do not add up."
        blocks.append(f"{refusal}{apart if any(cost.division for cost in tables) else ''}")
    blocks += [_table(cost) for cost in tables]
    if unknown:
        blocks.append(
            f"**No bound can be given:** {_runs(unknown)} left no guarantee (killed, or contradicted by the sampler's "
            "record), so what they spent is unknown."
        )
    if tables:
        blocks.append(_presumptions(tables))
    if unprotected:
        blocks.append(
            f"**Not private:** {_runs(unprotected)} of this sweep used the same data without any protection, not "
            "counted above. No epsilon covers publishing one of them, its curve, or a choice that it had a part in."
        )
    return "\n\n".join(blocks) + "\n"


def no_common_bound(costs: Sequence[ChoosingCost]) -> str:
    """Says why nothing bounds the runs of a unit together, and what would; empty where they share their units."""
    divided = {(cost.division, cost.relation): cost for cost in costs if cost.division is not None}
    if not divided:
        return ""
    runs, ways = sum(cost.runs for cost in divided.values()), len({division for division, _ in divided})
    unit = next(iter(divided.values())).unit
    return (
        f"No bound can be given for the {_runs(runs)} that protect {unit}s together: they divide the data among "
        f"different {unit}s, in {ways} ways, so that what one {unit} holds in one run belongs to many in another. The "
        "same partition in all of them would give one: set partition.seed, keep the partition's settings and sweep "
        "something else, or use partition=natural."
    )


def _table(cost: ChoosingCost) -> str:
    """The epsilons of one group, each with what has to be published for it."""
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
        + ("**Simulated:** noise came from a known seed; with secret noise it would be:\n\n" if cost.simulated else "")
        + f"| what is published | epsilon at delta {cost.delta:g} | accountant |\n|---|---|---|\n"
        + "\n".join(f"| {' | '.join(row)} |" for row in rows)
        + (f"\n\n{DEARER.format(cost.runs)}" if _is_dearer(cost) else "")
    )


def _is_dearer(cost: ChoosingCost) -> bool:
    """Whether the best of a random number costs more than everything, in the digits that the table shows."""
    return cost.select_best is not None and float(rounded_up(cost.select_best)) > float(rounded_up(cost.publish_all))


DEARER = (
    "Here the best of a random number costs more than all {0}: there may be more of them, each may have the weakest "
    "setting of the list and is counted as if it had, and RDP is looser. The smaller number does not cover it; but "
    "whoever publishes the best of exactly these {0} pays the last row only."
)
THEOREM = (
    "The rows for the best run rest on a theorem (Papernot & Steinke 2022, arXiv:2110.03620) that needs a *random* "
    "number of runs: drawn in secret from that distribution, each run with a setting drawn from the same list, and "
    "nothing of the others published. A fixed grid whose winner is published, such as this sweep, is covered by "
    "the last row only; so is whatever anybody learns who sees all of these runs. A seed counts as a run. The "
    "score that decides must come from data that need no protection, such as a public test split. "
)


def _presumptions(tables: Sequence[ChoosingCost]) -> str:
    theorem = THEOREM if any(cost.select_best is not None for cost in tables) else ""
    same = " if they protect the same users" if any(cost.division is not None for cost in tables) else ""
    return f"{theorem}Runs on the same data outside this sweep, and runs of it in another group above, add to it{same}."


def _runs(count: int) -> str:
    return "one run" if count == 1 else f"{count} runs"
