"""The parent run of a sweep: opened before its jobs, and closed after them together with runs that they left open."""

from collections.abc import Mapping
from typing import Literal

from pipelines.tracking.orphans import process_tag
from pipelines.tracking.read import NOTE_TAG, read_rows
from pipelines.tracking.store import Store, translated_errors

SWEEP_TAG = {"kind": "sweep"}


def start_sweep(store: Store, *, name: str, note: str, tags: Mapping[str, str]) -> str:
    """Opens the parent run and returns its id, for `RunStart.parent_id`."""
    with translated_errors(store.uri):
        run = store.client.create_run(
            store.experiment_id, run_name=name, tags={**tags, **SWEEP_TAG, **process_tag(), NOTE_TAG: note}
        )
    return str(run.info.run_id)


def finish_sweep(
    store: Store, parent_id: str, *, outcome: Literal["finished", "failed", "interrupted"] = "finished"
) -> str:
    """Closes the parent run, and every child that is still open because its process died.

    Args:
      store: where the parent is.
      parent_id: from `start_sweep`.
      outcome: what the launcher saw; jobs can fail before they open a run.

    Returns:
      The parent's status: KILLED if interrupted, else FAILED if a job failed or any child did not finish, else
      FINISHED.
    """
    children = read_rows(store, parent_id=parent_id)
    status = "FINISHED" if outcome == "finished" else "FAILED"
    if any(child.status != "FINISHED" for child in children):
        status = "FAILED"
    if outcome == "interrupted":
        status = "KILLED"
    with translated_errors(store.uri):
        for child in children:
            if child.status in ("RUNNING", "SCHEDULED"):
                store.client.set_terminated(child.run_id, "KILLED")
        store.client.set_terminated(parent_id, status)
    return status


def demote(store: Store, parent_id: str, reason: str) -> None:
    """Marks a sweep's parent FAILED, with the reason."""
    with translated_errors(store.uri):
        store.client.set_terminated(parent_id, "FAILED")
        store.client.set_tag(parent_id, "error", reason)
