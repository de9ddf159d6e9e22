"""Runs whose process was killed before it could say so."""

import os
import socket
from typing import TYPE_CHECKING

import psutil

from pipelines.tracking.run_log import REFUTED_TAG
from pipelines.tracking.store import Store, translated_errors

if TYPE_CHECKING:
    from mlflow.entities import Run

PROCESS_TAG = "process"
CLOCK_MAY_STEP_S = 30
"""The start of a process is told by the wall clock, which may be set while it runs."""


def process_tag() -> dict[str, str]:
    """Names this process: host, number and start, since numbers come round again."""
    process = psutil.Process()
    return {PROCESS_TAG: f"{socket.gethostname()} {os.getpid()} {process.create_time():.2f}"}


def close_orphans(store: Store) -> None:
    """Marks as KILLED the runs of this experiment that are RUNNING in a process of this host that is gone.

    SIGKILL and power cuts leave a process no time to close its run; the next run does it.
    """
    with translated_errors(store.uri):
        running = store.client.search_runs([store.experiment_id], "attributes.status = 'RUNNING'")
        for run in running:
            if _is_orphan(run):
                store.client.set_terminated(run.info.run_id, "KILLED")


def close_run(store: Store, run_id: str) -> bool:
    """Marks a run as KILLED if it is still open; False if it is gone, finished after all, or has been refuted.

    Raises:
      StoreError: the store fails.
    """
    from mlflow.exceptions import MlflowException

    with translated_errors(store.uri):
        try:
            run = store.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        info, tags = run.info, run.data.tags
        if info.lifecycle_stage != "active" or info.status == "FINISHED":
            return False
        if REFUTED_TAG in tags or tags.get("audit.verdict") == "contradicted":
            return False
        if info.status in ("RUNNING", "SCHEDULED"):
            store.client.set_terminated(run_id, "KILLED")
    return True


def _is_orphan(run: "Run") -> bool:
    return _is_gone(run.data.tags.get(PROCESS_TAG, ""))


def _is_gone(process: str) -> bool:
    """Whether the process that a tag names is gone; False where it is of another host."""
    host, _, rest = process.partition(" ")
    if host != socket.gethostname():
        return False
    number, _, start = rest.partition(" ")
    try:
        found = psutil.Process(int(number))
        return found.status() == psutil.STATUS_ZOMBIE or abs(found.create_time() - float(start)) > CLOCK_MAY_STEP_S
    except psutil.NoSuchProcess:
        return True
