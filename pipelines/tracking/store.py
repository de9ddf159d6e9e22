"""Where runs live: finds, checks and opens the MLflow store."""

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.cache import make_private
from pipelines.checkout import REPOSITORY
from pipelines.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

SQLITE = "sqlite:///"
SERVERS = ("http://", "https://", "postgresql", "mysql", "mssql", "databricks")
MODEL_TRAINING = {"mlflow.experimentKind": "custom_model_development"}  # which of its two faces the UI shows
FIRST_ANSWER_S = "8"
"""How long a server may take to answer the first time. MLflow's own default is minutes of retries."""


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


def resolve_uri(uri: str | None) -> str:
    """Makes `tracking.uri` absolute; None is the repository's mlflow.db.

    A relative sqlite path counts from the working directory, as a path typed in a shell does.

    Raises:
      UserError: neither a database nor a server, such as a plain folder.
    """
    if uri is None:
        return f"{SQLITE}{REPOSITORY / 'mlflow.db'}"
    if uri.startswith(SQLITE) and len(uri) > len(SQLITE):
        return f"{SQLITE}{Path(uri.removeprefix(SQLITE)).expanduser().absolute()}"
    if uri.startswith(SERVERS):
        return uri.rstrip("/")
    raise UserError(
        f"tracking.uri={uri} is no database or server; use sqlite:///folder/runs.db, http://127.0.0.1:5000 or null"
    )


def open_store(uri: str | None, experiment: str, *, create: bool = True) -> Store:
    """Opens an experiment, on first use also its database.

    Several processes may do this at the same time on the same fresh database.

    Args:
      uri: `tracking.uri`.
      experiment: name.
      create: whether a missing database or experiment is created.

    Raises:
      UserError: store unreachable, not writable or of another MLflow's schema; experiment deleted, or missing where
        `create` is false.
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
    """Checks and opens what a resolved URI names; yields its client, and its file where it is an sqlite database."""
    database = Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None
    if database is not None:
        _check_database(uri, database, create=create)
    with translated_errors(uri), _impatient(), _alone(database):
        import_mlflow()
        from mlflow import MlflowClient, set_tracking_uri

        set_tracking_uri(uri)
        yield MlflowClient(uri), database


def import_mlflow() -> None:
    """Sets what MLflow reads on import, then imports it: no telemetry, no chatter."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # Git is asked once, by the run itself; GitPython otherwise looks for it on import and prints when there is none.
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    import mlflow  # noqa: F401


@contextlib.contextmanager
def translated_errors(uri: str) -> Iterator[None]:
    """Turns what MLflow raises about the store into one line that names `tracking.uri`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # By module rather than by class: importing the classes would import MLflow and SQLAlchemy.
        if type(error).__module__.partition(".")[0] not in ("mlflow", "sqlalchemy", "requests", "sqlite3"):
            raise
        raise UserError(f"tracking.uri={uri}: {_reason(str(error))}") from error


def _reason(message: str) -> str:
    """The part of an MLflow message that its reader can use, in one line."""
    if re.search(r"Max retries exceeded|Connection refused|timed out|NameResolutionError", message):
        return "the server does not answer; start it (make ui) or drop tracking.uri"
    if "out-of-date database schema" in message:
        return "the database was written by another MLflow release; choose another file, or back it up and run " + (
            "`mlflow db upgrade`"
        )
    line = next((line for line in message.splitlines() if line.strip()), "no reason given")
    return line if len(line) < 200 else line[:200] + "..."


def _check_database(uri: str, database: Path, *, create: bool) -> None:
    """Fails at once where SQLAlchemy would retry for two minutes."""
    if not create and not database.exists():
        raise UserError(f"tracking.uri={uri} does not exist yet; train first: python -m pipelines.run")
    try:
        make_private(database.parent)
        for file_of_ours in (database, Path(f"{database}.lock")):
            file_of_ours.touch(mode=0o600)  # for its owner alone if it is new
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
def _impatient() -> Iterator[None]:
    """Makes MLflow give up on a silent server after seconds; later calls are as patient as ever."""
    before = dict(os.environ)
    os.environ |= {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": FIRST_ANSWER_S}
    try:
        yield
    finally:
        for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
            os.environ.pop(name)
            if name in before:
                os.environ[name] = before[name]


@contextlib.contextmanager
def _alone(database: Path | None) -> Iterator[None]:
    """Holds a lock beside the database: two migrations of one fresh file at once would break it.

    The lock is an sqlite transaction on a file of its own: portable, and freed by the system if its holder dies.
    """
    if database is None:
        yield
        return
    with contextlib.closing(sqlite3.connect(f"{database}.lock", timeout=120, isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        yield
