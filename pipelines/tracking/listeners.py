"""The listeners of a run: MLflow keeps its record, and the configuration may add others."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipelines.core.paths import REPOSITORY
from pipelines.core.terminal import remark
from pipelines.tracking.mlflow_run import MlflowRun
from pipelines.tracking.run_log import Artifact, RunLog, RunStart, Status
from pipelines.tracking.store import Store

if TYPE_CHECKING:
    from pipelines.config.schema import TrackingConfig
    from pipelines.engines.interface import FittedModel

OUTPUTS = REPOSITORY / "outputs"


def extra_listeners(tracking: "TrackingConfig", store: Store, run_id: str) -> dict[str, RunLog]:
    """Returns the listeners that a configuration adds, by the name of their output; each has its own module here.

    Args:
      tracking: the run's settings.
      store: where the run's record is.
      run_id: of the run.
    """
    found: dict[str, RunLog] = {}
    if tracking.tensorboard:
        from pipelines.tracking.tensorboard import TensorBoardRun

        found["TensorBoard files"] = TensorBoardRun(run_id, OUTPUTS / "tensorboard", store.experiment)
    return found


@contextmanager
def open_run(store: Store, start: RunStart, tracking: "TrackingConfig | None" = None) -> Iterator[RunLog]:
    """Opens a run, and closes it with its final status, after exceptions too.

    FINISHED after the block; FAILED after an exception; KILLED after KeyboardInterrupt, SystemExit or GeneratorExit.
    The exception then carries a note with the run's id and status, for the terminal. Metrics recorded before are kept.

    Args:
      store: from `open_store`; keeps the run's record.
      start: what is known of the run.
      tracking: names the listeners beside the record; None adds none.

    Raises:
      StoreError: the record cannot be opened or written.
    """
    record = MlflowRun.create(store, start)
    log: RunLog = record
    try:
        if tracking is not None and (extra := extra_listeners(tracking, store, record.run_id)):
            log = Listeners(record, extra)
        log.on_start(start)
        yield log
        log.on_end("FINISHED")
    except BaseException as error:
        log.on_end("FAILED" if isinstance(error, Exception) else "KILLED", error)
        raise


def reopen(store: Store, run_id: str) -> RunLog:
    """Returns the log of a run that is already in the store, open or closed; it writes to MLflow alone."""
    return MlflowRun(store, run_id)


class Listeners:
    """Passes every event to the record of a run, then to the other listeners.

    An exception of the record ends the run, and the other listeners do not get that event. After an exception of
    another listener, a line on standard error says so, and that listener gets no more events of this run.
    """

    def __init__(self, record: RunLog, extra: Mapping[str, RunLog]) -> None:
        self._record, self._extra = record, dict(extra)

    @property
    def run_id(self) -> str:
        """The run's identifier in the record."""
        return self._record.run_id

    def on_start(self, start: RunStart) -> None:
        """Passes it on."""
        self._tell(lambda listener: listener.on_start(start))

    def on_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Passes it on."""
        self._tell(lambda listener: listener.on_metrics(step, values))

    def on_tags(self, values: Mapping[str, str]) -> None:
        """Passes it on."""
        self._tell(lambda listener: listener.on_tags(values))

    def on_artifact(self, name: str, content: Artifact) -> None:
        """Passes it on."""
        self._tell(lambda listener: listener.on_artifact(name, content))

    def on_model(self, fitted: "FittedModel", features: tuple[int, ...]) -> None:
        """Passes it on."""
        self._tell(lambda listener: listener.on_model(fitted, features))

    def flush(self) -> None:
        """Flushes all listeners."""
        self._tell(lambda listener: listener.flush())

    def on_end(self, status: Status, error: BaseException | None = None) -> None:
        """Passes it on."""
        self._tell(lambda listener: listener.on_end(status, error))

    def _tell(self, event: Callable[[RunLog], Any]) -> None:
        event(self._record)
        for name, listener in tuple(self._extra.items()):
            try:
                event(listener)
            except Exception as error:  # any kind: the record has the event
                del self._extra[name]
                reason = error.strerror if isinstance(error, OSError) else None
                reason = reason or " ".join(f"{type(error).__name__}: {error}".split())
                remark(f"no more {name} ({reason[:200]}); all else is there")
