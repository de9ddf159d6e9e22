"""The MLflow store: finds, checks and opens it."""

import contextlib
import logging
import os
import re
import shlex
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.core.errors import StoreError, UserError
from pipelines.core.paths import make_private
from pipelines.tracking.address import SQLITE, database_of, resolve_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

MODEL_TRAINING = {"mlflow.experimentKind": "custom_model_development"}  # chooses between the two views of the UI
FIRST_ANSWER_S = "8"
"""How long a server may take to answer the first request of a run, and requests after a failure."""
PACKAGE = "mlflow"
"""The package whose version a result records."""
RESERVE = 32 * 1024
"""Bytes kept beside a database, enough to write a run's status and guarantee, with sqlite's journal, on a full disk."""
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""A server may be away for half a minute. MLflow's own default is minutes, for each call at the end of a run."""


@dataclass(frozen=True, kw_only=True)
class Store:
    """An open experiment.

    Attributes:
      client: MLflow's client for `uri`.
      uri: absolute, so that it means the same in every working directory.
      experiment: name.
      experiment_id: MLflow's identifier of it.
    """

    client: "MlflowClient"
    uri: str
    experiment: str
    experiment_id: str


def viewer(uri: str) -> str:
    """Says how to see a store's runs in MLflow's UI."""
    if database_of(uri) is None:
        return uri
    if uri == resolve_uri(None):
        return "make ui, then http://127.0.0.1:5000"
    return f"mlflow ui --backend-store-uri {shlex.quote(uri)}, then http://127.0.0.1:5000"


def open_store(uri: str | None, experiment: str, *, create: bool = True) -> Store:
    """Opens an experiment; on first use, makes the experiment and its database.

    Several processes may do this at the same time on the same fresh database.

    Args:
      uri: `tracking.uri`.
      experiment: name.
      create: whether a missing database or experiment is created.

    Raises:
      UserError: the store is unreachable, not writable or has another MLflow's schema; the experiment was deleted, or
        is missing and `create` is false.
    """
    uri = resolve_uri(uri)
    with _opened(uri, create=create) as (client, database):
        found = client.get_experiment_by_name(experiment)
        if found is None and create:
            found = _create_experiment(client, experiment, database)
        if found is None:
            names = ", ".join(sorted(item.name for item in client.search_experiments()))
            raise UserError(
                f"tracking.experiment={experiment} is not in {uri}, which holds: {names}; "
                "train first (python -m pipelines.run) or name one of these"
            )
    if found.lifecycle_stage != "active":
        raise UserError(f"tracking.experiment={experiment} was deleted in {uri}; restore it or choose another name")
    return Store(client=client, uri=uri, experiment=experiment, experiment_id=found.experiment_id)


def store_of_run(uri: str | None, run_id: str) -> Store:
    """Opens the experiment that a run belongs to.

    Args:
      uri: `tracking.uri`.
      run_id: in MLflow.

    Raises:
      UserError: store missing or unreachable, or no such run in it.
    """
    uri = resolve_uri(uri)
    with _opened(uri, create=False) as (client, _):
        from mlflow.exceptions import MlflowException

        try:
            experiment = client.get_experiment(client.get_run(run_id).info.experiment_id)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            raise UserError(f"run {run_id} is not in {uri}; copy the id from the MLflow UI, or pass --uri") from None
    return Store(client=client, uri=uri, experiment=experiment.name, experiment_id=experiment.experiment_id)


@contextlib.contextmanager
def _opened(uri: str, *, create: bool) -> Iterator[tuple["MlflowClient", Path | None]]:
    """Checks and opens the store of a resolved URI; yields its client, and the file of an sqlite database."""
    database = database_of(uri)
    if database is not None:
        _check_database(uri, database, create=create)
    import_mlflow()
    with translated_errors(uri), impatient(), _alone(database), _no_folders_left(uri):
        from mlflow import MlflowClient, set_tracking_uri

        set_tracking_uri(uri)
        yield MlflowClient(uri), database
        if database is not None:
            _keep_reserve(database)


@contextlib.contextmanager
def _no_folders_left(uri: str) -> Iterator[None]:
    """Removes the empty folders that MLflow makes when it takes an encoded address for a path."""
    misread = [] if "%" not in uri else [parent for parent in Path(uri.removeprefix(SQLITE)).parents if parent.name]
    made = [folder for folder in misread if not folder.exists()]
    try:
        yield
    finally:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def import_mlflow() -> None:
    """Sets MLflow's environment variables, then imports it: no telemetry, no messages, and short timeouts."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    # MLflow logs each exception that it raises, over hundreds of lines on a full disk. We report it in one line.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # The run itself asks git. GitPython would look for git at import, and would print a message if there is none.
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it warns of every retry
    import mlflow  # noqa: F401


@contextlib.contextmanager
def translated_errors(uri: str) -> Iterator[None]:
    """Turns MLflow's exceptions about the store into one line that names `tracking.uri`."""
    try:
        yield
    except (UserError, BrokenPipeError):
        raise
    except Exception as error:
        # By module rather than by class: importing the classes would import MLflow and SQLAlchemy.
        package = type(error).__module__.partition(".")[0]
        if package not in ("mlflow", "sqlalchemy", "requests", "sqlite3") and not isinstance(error, OSError):
            raise
        raise StoreError(f"tracking.uri={uri}: {_reason(str(error))}") from error


def _reason(message: str) -> str:
    """Returns the useful part of an MLflow message, in one line."""
    if re.search(r"Max retries exceeded|Connection refused|timed out|NameResolutionError", message):
        return "the server does not answer; start it (make ui) or drop tracking.uri"
    if re.search(r"disk is full|No space left|Disk quota exceeded", message):
        return "the disk is full; free some space, or choose another place"
    if "out-of-date database schema" in message:
        return "the database was written by another MLflow release; choose another file, or back it up and run " + (
            "`mlflow db upgrade`"
        )
    line = next((line for line in message.splitlines() if line.strip()), "no reason given")
    return line if len(line) < 200 else line[:200] + "..."


def _check_database(uri: str, database: Path, *, create: bool) -> None:
    """Fails at once on faults for which SQLAlchemy would retry for two minutes."""
    if not create and not database.exists():
        raise UserError(f"tracking.uri={uri} does not exist yet; train first: python -m pipelines.run")
    try:
        make_private(database.parent)
        for file_of_ours in (database, Path(f"{database}.lock")):
            file_of_ours.touch(mode=0o600)  # a new file is for its owner alone
        with database.open("ab"), database.open("rb") as file:
            head = file.read(16)
        _artifact_folder(database).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"tracking.uri={uri} is not writable ({error.strerror}); choose another path, such as "
            "tracking.uri=sqlite:///runs.db"
        ) from None
    if head and not head.startswith(b"SQLite format 3"):
        raise UserError(f"tracking.uri={uri} is not an sqlite database; choose another path")


def use_reserve(uri: str) -> None:
    """Frees the space reserved beside a database: on a full disk, a run can then be closed and log what it spent.

    The next run that opens the database reserves space again.
    """
    if (database := database_of(uri)) is not None:
        with contextlib.suppress(OSError):
            _reserve(database).unlink(missing_ok=True)


def _keep_reserve(database: Path) -> None:
    with contextlib.suppress(OSError):
        if not _reserve(database).exists():
            _reserve(database).touch(mode=0o600)
            _reserve(database).write_bytes(bytes(RESERVE))


def _reserve(database: Path) -> Path:
    return Path(f"{database}.reserve")


def _artifact_folder(database: Path) -> Path:
    return database.parent / "mlartifacts"


def _create_experiment(client: "MlflowClient", name: str, database: Path | None) -> "Experiment | None":
    """Creates the experiment, or finds the one that another process has just created."""
    from mlflow.exceptions import MlflowException

    location = None if database is None else _artifact_folder(database).as_uri()
    try:
        client.create_experiment(name, artifact_location=location, tags=MODEL_TRAINING)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return client.get_experiment_by_name(name)


@contextlib.contextmanager
def impatient() -> Iterator[None]:
    """Makes MLflow give up on a silent server after seconds: before a run starts, and after a failure."""
    chosen = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": FIRST_ANSWER_S}
    before = {name: os.environ.get(name) for name in chosen}
    os.environ |= chosen
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _alone(database: Path | None) -> Iterator[None]:
    """Holds a lock beside the database: two migrations of a new file at the same time would break it.

    The lock is an sqlite transaction on a separate file. It is portable, and the system frees it if its holder dies.
    """
    if database is None:
        yield
        return
    with contextlib.closing(sqlite3.connect(f"{database}.lock", timeout=120, isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        yield
