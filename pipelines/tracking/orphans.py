"""Runs whose process was killed before it could say so."""

import os
import socket
from typing import TYPE_CHECKING

import psutil

from pipelines.tracking.store import Store, translated_errors

if TYPE_CHECKING:
    from mlflow.entities import Run

PROCESS_TAG = "process"


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


def _is_orphan(run: "Run") -> bool:
    host, _, rest = run.data.tags.get(PROCESS_TAG, "").partition(" ")
    if host != socket.gethostname():
        return False
    number, _, start = rest.partition(" ")
    try:
        return abs(psutil.Process(int(number)).create_time() - float(start)) > 1
    except psutil.NoSuchProcess:
        return True
