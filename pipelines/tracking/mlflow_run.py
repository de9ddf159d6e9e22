"""One MLflow run from its first tag to its final status: the record of a run, whose failures must be noticed."""

import contextlib
import json
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
from pipelines.tracking.read import COMMIT_TAG, NOTE_TAG, PARENT_TAG
from pipelines.tracking.run_log import COMMIT, NOTE, Artifact, RunStart, Status, without_infinite
from pipelines.tracking.store import Store, impatient, translated_errors, use_reserve

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric

FLUSH_S = 2.0
"""Metrics wait this long and are sent together: one batch costs as much as one metric."""
PARAM_LENGTH = 6000
TAG_LENGTH = 8000
BATCH = 100
METRIC_BATCH = 1000
DIGEST_LENGTH = 36
SOURCE = {"mlflow.source.name": "pipelines.run", "mlflow.source.type": "LOCAL"}
OWN_NAMES = {NOTE: NOTE_TAG, COMMIT: COMMIT_TAG}
"""Tags that have other names in MLflow's UI."""


class MlflowRun:
    """Writes a run's events to MLflow.

    Every method raises StoreError if the store fails, except `on_end` after an error of the run.

    Attributes:
      run_id: MLflow's identifier.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self.run_id = run_id
        self._store = store
        self._private = False
        self._waiting: list[Metric] = []
        self._flushed = time.monotonic()

    @classmethod
    def create(cls, store: Store, start: RunStart) -> "MlflowRun":
        """Makes the run, as a child of the sweep's run if there is one; `on_start` fills it.

        Raises:
          StoreError: the store fails; the error counts it as lost.
        """
        nested = {} if start.parent_id is None else {PARENT_TAG: start.parent_id}
        try:
            with translated_errors(store.uri):
                run = store.client.create_run(store.experiment_id, run_name=start.name, tags=nested)
        except StoreError as error:
            error.lost = True
            raise
        return cls(store, run.info.run_id)

    def on_start(self, start: RunStart) -> None:
        """Logs tags, parameters and the dataset.

        Keeps 8000 characters of a tag, and 6000 of a parameter. A parameter None is logged as "null".
        """
        self._private = start.private
        self.on_tags({**SOURCE, **process_tag(), **start.tags})
        self._log_params(start.params)
        if start.dataset is not None:
            with translated_errors(self._store.uri):
                self._store.client.log_inputs(self.run_id, datasets=[_reference(start.dataset)])

    def on_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Records values at one integer step, and sends all waiting ones about every `FLUSH_S` seconds."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(name, value, now, step) for name, value in without_infinite(values).items()]
        if time.monotonic() - self._flushed >= FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Sends the metrics that wait."""
        waiting, self._waiting = self._waiting, []
        with translated_errors(self._store.uri):
            for start in range(0, len(waiting), METRIC_BATCH):
                self._store.client.log_batch(self.run_id, metrics=waiting[start : start + METRIC_BATCH])
        self._flushed = time.monotonic()

    def on_tags(self, values: Mapping[str, str]) -> None:
        """Sets tags."""
        from mlflow.entities import RunTag

        tags = [RunTag(OWN_NAMES.get(key, key), str(value)[:TAG_LENGTH]) for key, value in values.items()]
        with translated_errors(self._store.uri):
            for start in range(0, len(tags), BATCH):
                self._store.client.log_batch(self.run_id, tags=tags[start : start + BATCH])

    def on_artifact(self, name: str, content: Artifact) -> None:
        """Uploads a file, or the content of a folder to the folder `name`."""
        if isinstance(content, Path) and content.is_dir():
            with translated_errors(self._store.uri):
                self._store.client.log_artifacts(self.run_id, str(content), name)
            return
        with self._upload(name) as path:
            match content:
                case str():
                    path.write_text(content, encoding="utf-8")
                case dict() | list():
                    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
                case Path():
                    path.write_bytes(content.read_bytes())
                case _:
                    content.savefig(path)

    def on_model(self, fitted: FittedModel, features: tuple[int, ...]) -> None:
        """Logs the model for `mlflow.pyfunc`; see `log_model`."""
        with translated_errors(self._store.uri):
            log_model(self._store, self.run_id, fitted, features)

    def on_end(self, status: Status, error: BaseException | None = None) -> None:
        """Closes the run; after an error, logs its message as the tag `error` and adds a note for the terminal to it.

        After an error this raises nothing, because a failure of the store must not hide why the run ended.
        """
        if error is not None:
            self._close_after(status, error)
            return
        self.flush()
        with translated_errors(self._store.uri):
            self._store.client.set_terminated(self.run_id, status)

    def _close_after(self, status: Status, error: BaseException) -> None:
        reason = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, UserError) and str(error):
            reason = type(error).__name__ if self._private else f"{type(error).__name__}: {reason}"
        # The status comes first: a second interrupt may prevent the rest.
        if isinstance(error, StoreError):
            use_reserve(self._store.uri)
        with impatient():
            try:
                self._store.client.set_terminated(self.run_id, status)
            except Exception:
                error.add_note(f"run {self.run_id} could not be marked {status}; the next run in this store does it")
                if isinstance(error, StoreError):
                    error.lost = True
                return
            error.add_note(f"run {self.run_id} is marked {status} and keeps what it logged")
            for attempt in (lambda: self.on_tags({"error": reason}), self.flush):
                with contextlib.suppress(Exception):
                    attempt()

    def _log_params(self, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        items = [Param(key, _as_text(value)) for key, value in params.items()]
        with translated_errors(self._store.uri):
            for start in range(0, len(items), BATCH):
                self._store.client.log_batch(self.run_id, params=items[start : start + BATCH])

    @contextlib.contextmanager
    def _upload(self, name: str) -> Iterator[Path]:
        folder, _, file = name.rpartition("/")
        with tempfile.TemporaryDirectory() as scratch, translated_errors(self._store.uri):
            yield Path(scratch, file)
            self._store.client.log_artifact(self.run_id, str(Path(scratch, file)), folder or None)


def _as_text(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= PARAM_LENGTH else text[: PARAM_LENGTH - 3] + "..."


def _reference(dataset: Dataset) -> "DatasetInput":
    """Describes the data of the run by name, shape and fingerprint, without the examples themselves."""
    from mlflow.entities import Dataset as Reference
    from mlflow.entities import DatasetInput, InputTag

    shape = list(dataset.features)
    profile = {"num_train": len(dataset.train), "num_test": len(dataset.test), "classes": dataset.classes}
    tensor = {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, *shape]}}
    label = {"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}
    schema = {"mlflow_tensorspec": {"features": json.dumps([tensor]), "targets": json.dumps([label])}}
    reference = Reference(
        name=dataset.name,
        digest=dataset.fingerprint[:DIGEST_LENGTH],
        source_type="code",
        source=json.dumps({"tags": {"dataset": dataset.name, "sha256": dataset.fingerprint}}),
        schema=json.dumps(schema),
        profile=json.dumps(profile),
    )
    return DatasetInput(reference, [InputTag("mlflow.data.context", "training")])
