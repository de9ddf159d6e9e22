"""A run that has finished: reads what it logged, and adds to it."""

from dataclasses import dataclass

from pipelines.core.errors import UserError
from pipelines.tracking.listeners import reopen
from pipelines.tracking.read import COMMIT_TAG, read_row, read_text
from pipelines.tracking.run_log import RunLog
from pipelines.tracking.store import Store, store_of_run, translated_errors


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Attributes:
      store: where the run is.
      log: adds to the run.
    """

    store: Store
    log: RunLog

    def text(self, name: str) -> str:
        """Reads a text artifact.

        Raises:
          UserError: the run has no artifact of that name.
        """
        text = read_text(self.store, self.log.run_id, name)
        if text is None:
            raise UserError(f"run {self.log.run_id} has no {name}; name a private run that ended")
        return text

    def commit(self) -> str:
        """Reads the commit that made the run."""
        return read_row(self.store, self.log.run_id).tags.get(COMMIT_TAG, "unknown")

    def fail(self, reason: str) -> None:
        """Marks the run FAILED, with the reason."""
        self.log.on_tags({"error": reason})
        with translated_errors(self.store.uri):
            self.store.client.set_terminated(self.log.run_id, "FAILED")


def open_finished(uri: str | None, run_id: str) -> FinishedRun:
    """Opens a run that has finished.

    Raises:
      UserError: no such store or run, or it did not finish.
    """
    store = store_of_run(uri, run_id)
    with translated_errors(store.uri):
        status = store.client.get_run(run_id).info.status
    if status != "FINISHED":
        raise UserError(f"run {run_id} is {status}; only a FINISHED run is audited")
    return FinishedRun(store, reopen(store, run_id))
