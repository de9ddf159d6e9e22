"""Closes runs whose process was killed before it could close them."""

import os
import socket

import psutil

from pipelines.tracking.run_log import REFUTED_TAG
from pipelines.tracking.store import Store, translated_errors

PROCESS_TAG = "process"
CLOCK_MAY_STEP_S = 30
"""Tolerance of a process's start time, which depends on the wall clock: the clock may be changed while it runs."""


def process_tag() -> dict[str, str]:
    """Identifies this process by host, process id and start time, because process ids are reused."""
    process = psutil.Process()
    return {PROCESS_TAG: f"{socket.gethostname()} {os.getpid()} {process.create_time():.2f}"}


def close_orphans(store: Store) -> None:
    """Marks RUNNING runs of this experiment as KILLED if their process ran on this host and is gone.

    SIGKILL and power cuts leave a process no time to close its run, so the next run does it.
    """
    with translated_errors(store.uri):
        running = store.client.search_runs([store.experiment_id], "attributes.status = 'RUNNING'")
        for run in running:
            if _is_gone(run.data.tags.get(PROCESS_TAG, "")):
                store.client.set_terminated(run.info.run_id, "KILLED")


def close_run(store: Store, run_id: str) -> bool:
    """Marks a run as KILLED if it is still open; returns False if it was deleted, has finished, or was refuted.

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


def _is_gone(process: str) -> bool:
    """Whether the process that a tag names is gone; False if it ran on another host."""
    host, _, rest = process.partition(" ")
    if host != socket.gethostname():
        return False
    number, _, start = rest.partition(" ")
    try:
        found = psutil.Process(int(number))
        return found.status() == psutil.STATUS_ZOMBIE or abs(found.create_time() - float(start)) > CLOCK_MAY_STEP_S
    except psutil.NoSuchProcess:
        return True
