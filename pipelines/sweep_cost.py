"""Puts the cost of choosing among a sweep's private runs with the sweep itself."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from pipelines.privacy.choosing import ChoosingCost, choosing_costs, choosing_statement, cost_metrics
from pipelines.privacy.guarantee import PrivacyGuarantee
from pipelines.tracking.read import REFUTED_TAG, read_json, read_rows
from pipelines.tracking.run_log import RunLog

if TYPE_CHECKING:
    from pipelines.tracking.store import Store

NOTE = "mlflow.note.content"


def record_cost(store: "Store", parent_id: str) -> list[ChoosingCost]:
    """Logs metrics, choosing.md, choosing.json and a line of the note with the parent of a sweep's private runs.

    A sweep without private runs gets nothing. Where a private run left no guarantee there is no bound for all of them:
    the text says so, and there are no metrics.

    Args:
      store: where the sweep is.
      parent_id: the sweep's parent run.

    Returns:
      The costs; none where there is no bound.

    Raises:
      UserError: the store fails.
    """
    rows = read_rows(store, parent_id=parent_id)
    private = [row for row in rows if "privacy.unit" in row.tags]
    if not private:
        return []
    found = [None if REFUTED_TAG in row.tags else read_json(store, row.run_id, "privacy.json") for row in private]
    guarantees = [PrivacyGuarantee.from_dict(values) for values in found if values is not None]
    unknown = len(private) - len(guarantees)
    costs = [] if unknown else choosing_costs(guarantees)
    log = RunLog(store, parent_id)
    log.text("choosing.md", choosing_statement(costs, unprotected=len(rows) - len(private), unknown=unknown))
    log.json("choosing.json", [asdict(cost) for cost in costs])
    log.metrics(0, cost_metrics(costs))
    log.flush()
    before = store.client.get_run(parent_id).data.tags.get(NOTE, "")
    log.tags({NOTE: f"{before}\n\n{_summary(costs)} See choosing.md."})
    return costs


def _summary(costs: list[ChoosingCost]) -> str:
    if not costs:
        return "What its private runs cost together is unknown."
    return " ".join(in_words(cost) for cost in costs)


def in_words(cost: ChoosingCost) -> str:
    """One sentence for the terminal and the note."""
    if cost.select_best is None:
        return f"The one run that protects {cost.unit}s costs epsilon {cost.single:.3f} at delta {cost.delta:g}."
    return (
        f"Publishing all {cost.runs} runs that protect {cost.unit}s, or the best of exactly these, costs epsilon "
        f"{cost.publish_all:.3f} at delta {cost.delta:g}; the best of a random number of runs, {cost.runs} on "
        f"average, {cost.select_best:.3f}."
    )
