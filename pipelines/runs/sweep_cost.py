"""Logs the joint cost of a sweep's private runs with the sweep itself."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from pipelines.privacy.guarantee import PrivacyGuarantee
from pipelines.privacy.hyperparameter_selection import (
    ChoosingCost,
    PrivateRun,
    choosing_costs,
    choosing_statement,
    cost_metrics,
    no_common_bound,
)
from pipelines.privacy.rounding import rounded_up
from pipelines.tracking.listeners import reopen
from pipelines.tracking.read import RunRow, read_json, read_note, read_rows
from pipelines.tracking.run_log import NOTE, REFUTED_TAG

if TYPE_CHECKING:
    from pipelines.tracking.store import Store


def record_cost(store: "Store", parent_id: str) -> list[ChoosingCost]:
    """Logs metrics, choosing.md, choosing.json and a line of the note with the parent of a sweep's private runs.

    A sweep without private runs gets nothing. If a private run left no guarantee, there is no bound for the runs
    together. If runs divide the data among different users, there is no bound for these runs together. The text then
    says so, and there are no metrics.

    Args:
      store: where the sweep is.
      parent_id: the sweep's parent run.

    Returns:
      The costs; empty if there is no bound.

    Raises:
      UserError: the store fails.
    """
    rows = read_rows(store, parent_id=parent_id)
    private = [row for row in rows if "privacy.unit" in row.tags]
    if not private:
        return []
    found = [None if REFUTED_TAG in row.tags else read_json(store, row.run_id, "privacy.json") for row in private]
    runs = [
        PrivateRun(guarantee=PrivacyGuarantee.from_dict(values), division=_division(row))
        for row, values in zip(private, found, strict=True)
        if values is not None
    ]
    unknown = len(private) - len(runs)
    costs = [] if unknown else choosing_costs(runs)
    log = reopen(store, parent_id)
    log.on_artifact("choosing.md", choosing_statement(costs, unprotected=len(rows) - len(private), unknown=unknown))
    log.on_artifact("choosing.json", [asdict(cost) for cost in costs])
    log.on_metrics(0, cost_metrics(costs))
    log.flush()
    log.on_tags({NOTE: f"{read_note(store, parent_id)}\n\n{_summary(costs)} See choosing.md."})
    return costs


def _division(row: RunRow) -> str:
    """Identifies the users: their partition and its data. Features of the same data do not change the users."""
    if row.tags["privacy.unit"] != "user" or row.params.get("partition.name") == "natural":
        return ""
    partition = row.tags.get("partition.sha256", row.run_id)  # an unknown partition equals no other one
    data = (f"{key}={value}" for key, value in sorted(row.params.items()) if key.startswith("dataset."))
    return " ".join([partition, *data])


def _summary(costs: list[ChoosingCost]) -> str:
    return " ".join(in_words(costs)) if costs else "The joint cost of its private runs is unknown."


def in_words(costs: Sequence[ChoosingCost]) -> list[str]:
    """Sentences for the terminal and the note."""
    sentences = [_sentence(cost) for cost in costs if cost.division is None]
    return list(filter(None, [*sentences, no_common_bound(costs)]))


def _sentence(cost: ChoosingCost) -> str:
    if cost.select_best is None:
        single = rounded_up(cost.single)
        return f"The one run that protects {cost.unit}s costs epsilon {single} at delta {rounded_up(cost.delta, 6)}."
    return (
        f"Publishing all {cost.runs} runs that protect {cost.unit}s, or the best of exactly these, costs epsilon "
        f"{rounded_up(cost.publish_all)} at delta {rounded_up(cost.delta, 6)}; the best of a random number of runs, "
        f"{cost.runs} on average, {rounded_up(cost.select_best)}."
    )
