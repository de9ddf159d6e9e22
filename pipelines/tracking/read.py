"""Reads runs back as plain rows, so that reports do not need MLflow."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.errors import UserError
from pipelines.tracking.store import Store, translated_errors

if TYPE_CHECKING:
    from mlflow.entities import Run

PARENT_TAG = "mlflow.parentRunId"
NOTE_TAG = "mlflow.note.content"
COMMIT_TAG = "mlflow.source.git.commit"
VARIANT_TAG = "recipe.variant"
"""Which part of a recipe a run is from, where the recipe names its parts."""
PAGE = 1000


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One run.

    Attributes:
      run_id, name: as in MLflow.
      status: RUNNING, FINISHED, FAILED or KILLED.
      started: milliseconds since 1970.
      tags, params: as logged.
      metrics: the last value of each.
    """

    run_id: str
    name: str
    status: str
    started: int
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]


def read_rows(store: Store, *, parent_id: str | None = None) -> list[RunRow]:
    """Reads the runs of an experiment, or only the children of one run, oldest first.

    Raises:
      UserError: the store fails, or the parent is not in the experiment.
    """
    with translated_errors(store.uri):
        if parent_id is not None:
            _check_parent(store, parent_id)
        chosen = "" if parent_id is None else f"tags.`{PARENT_TAG}` = '{parent_id}'"
        rows: list[RunRow] = []
        token = None
        while True:
            page = store.client.search_runs([store.experiment_id], chosen, max_results=PAGE, page_token=token)
            rows += [_row(run) for run in page]
            token = page.token
            if not token:
                return sorted(rows, key=lambda row: row.started)


def read_row(store: Store, run_id: str) -> RunRow:
    """Reads one run.

    Raises:
      UserError: the store fails, or has no such run.
    """
    with translated_errors(store.uri):
        return _row(store.client.get_run(run_id))


def read_note(store: Store, run_id: str) -> str:
    """Reads the note of a run; empty where it has none.

    Raises:
      UserError: the store fails, or has no such run.
    """
    return read_row(store, run_id).tags.get(NOTE_TAG, "")


def read_last_step(store: Store, run_id: str, metric: str) -> int:
    """Reads the last step at which a run recorded a metric.

    Raises:
      UserError: the store fails, or the run did not record it.
    """
    with translated_errors(store.uri):
        history = store.client.get_metric_history(run_id, metric)
    if not history:
        raise UserError(f"run {run_id} has no {metric}; name a run that ended")
    return max(int(item.step) for item in history)


def read_text(store: Store, run_id: str, name: str) -> str | None:
    """Reads a text artifact of a run; None where the run has none of this name.

    Raises:
      UserError: the store fails.
    """
    with translated_errors(store.uri), tempfile.TemporaryDirectory() as scratch:
        if name not in {item.path for item in store.client.list_artifacts(run_id)}:
            return None
        return Path(store.client.download_artifacts(run_id, name, scratch)).read_text(encoding="utf-8")


def read_json(store: Store, run_id: str, name: str) -> Any:
    """Reads a JSON artifact of a run; None where the run has none of this name.

    Raises:
      UserError: the store fails, or the artifact is not JSON.
    """
    text = read_text(store, run_id, name)
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise UserError(f"{name} of run {run_id} is not JSON: {error}") from None


def read_examples(store: Store, run_id: str) -> int | None:
    """Reads how many training examples the logged dataset of a run has; None where none was logged.

    Raises:
      UserError: the store fails.
    """
    with translated_errors(store.uri):
        inputs = store.client.get_run(run_id).inputs
    profiles = [item.dataset.profile for item in inputs.dataset_inputs if item.dataset.profile] if inputs else []
    try:
        return int(json.loads(profiles[0])["num_train"])
    except (IndexError, KeyError, TypeError, ValueError):
        return None


def read_population(store: Store, run_id: str) -> int | None:
    """Reads the public number of units of a run's guarantee; None if it cannot be read."""
    try:
        return int(read_json(store, run_id, "privacy.json")["population"])
    except (UserError, KeyError, TypeError, ValueError):  # a frontier works without it
        return None


def _row(run: "Run") -> RunRow:
    return RunRow(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        status=run.info.status,
        started=run.info.start_time or 0,
        tags=dict(run.data.tags),
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
    )


def _check_parent(store: Store, parent_id: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        parent = store.client.get_run(parent_id)
    except MlflowException:
        raise UserError(f"run {parent_id} is not in {store.uri}; copy the id from the MLflow UI") from None
    if parent.info.experiment_id != store.experiment_id:
        raise UserError(f"run {parent_id} belongs to another experiment than {store.experiment}; pass --experiment")
