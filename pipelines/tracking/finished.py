"""A run that has ended: what it logged, and what may be added to it."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import UserError
from pipelines.tracking.run_log import RunLog
from pipelines.tracking.store import Store, store_of_run, translated_errors


@dataclass(frozen=True)
class FinishedRun:
    """A run of a store.

    Attributes:
      store: where it is.
      log: what may be added.
    """

    store: Store
    log: RunLog

    def text(self, name: str) -> str:
        """Reads a text artifact.

        Raises:
          UserError: the run has none of that name.
        """
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        client, run_id = self.store.client, self.log.run_id
        with translated_errors(self.store.uri), tempfile.TemporaryDirectory() as scratch:
            if name not in {item.path for item in client.list_artifacts(run_id)}:
                raise UserError(f"run {run_id} has no {name}; name a private run that ended")
            return Path(client.download_artifacts(run_id, name, scratch)).read_text(encoding="utf-8")

    def fail(self, reason: str) -> None:
        """Marks the run FAILED, with the reason."""
        self.log.tags({"error": reason})
        with translated_errors(self.store.uri):
            self.store.client.set_terminated(self.log.run_id, "FAILED")


def open_finished(uri: str | None, run_id: str) -> FinishedRun:
    """Opens a run that has ended.

    Raises:
      UserError: no such store or run, or it did not finish.
    """
    store = store_of_run(uri, run_id)
    with translated_errors(store.uri):
        status = store.client.get_run(run_id).info.status
    if status != "FINISHED":
        raise UserError(f"run {run_id} is {status}; only a FINISHED run states what it guarantees")
    return FinishedRun(store, RunLog(store, run_id))
