"""One MLflow run from its first tag to its last status."""

import contextlib
import json
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.errors import StoreError, UserError
from pipelines.data.dataset import Dataset
from pipelines.engines.interface import FittedModel
from pipelines.tracking.logged_model import log_model
from pipelines.tracking.orphans import process_tag
from pipelines.tracking.read import PARENT_TAG, REFUTED_TAG
from pipelines.tracking.store import Store, impatient, translated_errors, use_reserve

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow.entities import Metric

FLUSH_S = 2.0
"""Metrics wait this long for company: one batch costs as much as one metric."""
PARAM_LENGTH = 6000
TAG_LENGTH = 8000
BATCH = 100
METRIC_BATCH = 1000
DIGEST_LENGTH = 36
SOURCE = {"mlflow.source.name": "pipelines.run", "mlflow.source.type": "LOCAL"}


def refuted(error: Exception) -> dict[str, str]:
    """Tags of a run whose own checks, or an audit, contradict what it claims."""
    reason = " ".join(str(error).split())
    return {REFUTED_TAG: reason, "mlflow.note.content": f"**No guarantee:** {reason}."}


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined with dots."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


class RunLog:
    """What a running pipeline may write. Made by `open_run`.

    Attributes:
      run_id: MLflow's identifier.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self.run_id = run_id
        self._store = store
        self._waiting: list[Metric] = []
        self._flushed = time.monotonic()

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Records values at one integer step.

        NaN is kept, as a sign of divergence; infinity is left out: MLflow stores it as 1.8e308, which ruins charts.
        """
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(k, float(v), now, step) for k, v in values.items() if not math.isinf(v)]
        if time.monotonic() - self._flushed >= FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Sends the metrics that wait."""
        waiting, self._waiting = self._waiting, []
        with translated_errors(self._store.uri):
            for start in range(0, len(waiting), METRIC_BATCH):
                self._store.client.log_batch(self.run_id, metrics=waiting[start : start + METRIC_BATCH])
        self._flushed = time.monotonic()

    def tags(self, values: Mapping[str, str]) -> None:
        """Adds tags that were not known when the run was opened."""
        from mlflow.entities import RunTag

        tags = [RunTag(key, str(value)[:TAG_LENGTH]) for key, value in values.items()]
        with translated_errors(self._store.uri):
            for start in range(0, len(tags), BATCH):
                self._store.client.log_batch(self.run_id, tags=tags[start : start + BATCH])

    def text(self, name: str, text: str) -> None:
        """Writes a text artifact; `name` may hold folders."""
        with self._artifact(name) as path:
            path.write_text(text, encoding="utf-8")

    def json(self, name: str, value: Any) -> None:
        """Writes plain data as a JSON artifact."""
        self.text(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def figure(self, name: str, figure: "Figure") -> None:
        """Writes a matplotlib figure; the name's ending is the format."""
        with self._artifact(name) as path:
            figure.savefig(path)

    def dataset(self, dataset: Dataset) -> None:
        """Records which data the run saw: name, shape and fingerprint, not the examples themselves."""
        from mlflow.entities import Dataset as Reference
        from mlflow.entities import DatasetInput, InputTag

        shape = list(dataset.features)
        profile = {"num_train": len(dataset.train), "num_test": len(dataset.test), "classes": dataset.classes}
        tensor = {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, *shape]}}
        label = {"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}
        reference = Reference(
            name=dataset.name,
            digest=dataset.fingerprint[:DIGEST_LENGTH],
            source_type="code",
            source=json.dumps({"tags": {"dataset": dataset.name, "sha256": dataset.fingerprint}}),
            schema=json.dumps(
                {"mlflow_tensorspec": {"features": json.dumps([tensor]), "targets": json.dumps([label])}}
            ),
            profile=json.dumps(profile),
        )
        context = [InputTag("mlflow.data.context", "training")]
        with translated_errors(self._store.uri):
            self._store.client.log_inputs(self.run_id, datasets=[DatasetInput(reference, context)])

    def model(self, fitted: FittedModel, features: tuple[int, ...]) -> str:
        """Logs the model for `mlflow.pyfunc` and returns its URI; see `log_model`."""
        with translated_errors(self._store.uri):
            return log_model(self._store, self.run_id, fitted, features)

    @contextlib.contextmanager
    def _artifact(self, name: str) -> Iterator[Path]:
        folder, _, file = name.rpartition("/")
        with tempfile.TemporaryDirectory() as scratch, translated_errors(self._store.uri):
            yield Path(scratch, file)
            self._store.client.log_artifact(self.run_id, str(Path(scratch, file)), folder or None)


@contextlib.contextmanager
def open_run(
    store: Store,
    *,
    name: str,
    tags: Mapping[str, str],
    params: Mapping[str, Any],
    note: str,
    parent_id: str | None = None,
    private: bool = False,
) -> Iterator[RunLog]:
    """Opens a run, and closes it with the status it earned, whatever happens inside.

    FINISHED after the block; FAILED after an exception, with its message as tag `error`; KILLED after
    KeyboardInterrupt, SystemExit or GeneratorExit. The exception then carries a note with the run's id and status, for
    whoever tells the user. Metrics recorded before are kept.

    Args:
      store: from `open_store`.
      name: readable, such as "dp_sgd eps=3 seed=0".
      tags: at most 8000 characters each; what is longer is cut.
      params: flat, dotted keys; None is logged as "null", what is longer than 6000 characters is cut.
      note: explains the run to a reader of the UI, in Markdown.
      parent_id: makes this a nested child of that run.
      private: keeps the text of unexpected exceptions, which may hold sizes of private samples, out of the log.
    """
    nested = {} if parent_id is None else {PARENT_TAG: parent_id}
    try:
        with translated_errors(store.uri):
            run = store.client.create_run(store.experiment_id, run_name=name, tags=nested)
    except StoreError as error:
        error.lost = True
        raise
    log = RunLog(store, run.info.run_id)
    try:
        log.tags({**SOURCE, **process_tag(), "mlflow.note.content": note, **tags})
        _log_params(store, log.run_id, params)
        yield log
        log.flush()
        with translated_errors(store.uri):
            store.client.set_terminated(log.run_id, "FINISHED")
    except BaseException as error:
        _close_after(log, store, "FAILED" if isinstance(error, Exception) else "KILLED", error, private)
        raise


def _log_params(store: Store, run_id: str, params: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    items = [Param(key, _as_text(value)) for key, value in params.items()]
    with translated_errors(store.uri):
        for start in range(0, len(items), BATCH):
            store.client.log_batch(run_id, params=items[start : start + BATCH])


def _as_text(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= PARAM_LENGTH else text[: PARAM_LENGTH - 3] + "..."


def _close_after(log: RunLog, store: Store, status: str, error: BaseException, private: bool) -> None:
    """Closes a run that did not end well; a failing store must not hide why."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, UserError) and str(error):
        reason = type(error).__name__ if private else f"{type(error).__name__}: {reason}"
    # The status first: a second interrupt may cut short whatever follows.
    if isinstance(error, StoreError):
        use_reserve(store.uri)
    with impatient():
        try:
            store.client.set_terminated(log.run_id, status)
        except Exception:
            error.add_note(f"run {log.run_id} could not be marked {status}; the next run in this store does it")
            if isinstance(error, StoreError):
                error.lost = True
            return
        error.add_note(f"run {log.run_id} is marked {status} and keeps what it logged")
        for attempt in (lambda: log.tags({"error": reason}), log.flush):
            with contextlib.suppress(Exception):
                attempt()
