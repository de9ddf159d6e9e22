"""The membership test over a sweep: logs one figure of all runs and a table with the parent run."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.auditing.finding import Membership
from pipelines.auditing.membership import CURVE_FILE, Roc
from pipelines.core.terminal import decoration
from pipelines.tracking.listeners import reopen
from pipelines.tracking.read import read_json, read_rows

if TYPE_CHECKING:
    from pipelines.tracking.store import Store


def publish_membership(store: "Store", parent_id: str) -> str | None:
    """Logs membership/membership.png and membership.csv with the parent of runs with audit=membership.

    Args:
      store: of the sweep.
      parent_id: id of the sweep's parent run.

    Returns:
      The table for the terminal; None if no finished run of the sweep was tested.

    Raises:
      UserError: the store fails.
    """
    rows = [row for row in read_rows(store, parent_id=parent_id) if row.tags.get("audit") == "membership"]
    read = [read_json(store, row.run_id, CURVE_FILE) for row in rows if row.status == "FINISHED"]
    runs = [(Membership.from_dict(values), Roc.from_dict(values["roc"])) for values in read if values is not None]
    if not runs:
        return None
    from pipelines.auditing.membership_figure import membership_csv, membership_table, sweep_figure
    from pipelines.report.drawing import save

    with tempfile.TemporaryDirectory() as scratch:
        with decoration("membership.png"):
            save(sweep_figure(runs), Path(scratch, "membership.png"))
        Path(scratch, "membership.csv").write_text(membership_csv([found for found, _ in runs]), encoding="utf-8")
        reopen(store, parent_id).on_artifact("membership", Path(scratch))
    return membership_table([found for found, _ in runs])
