"""The command line as its users call it, on a store of its own."""

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.tracking import store
from pipelines.tracking.read import RunRow, read_rows
from pipelines.tracking.store import import_mlflow, open_store
from tests.mutants.summary import pytest_terminal_summary

__all__ = ["pytest_terminal_summary"]  # pytest finds it here, whichever tests it is asked for

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a shell's background job; what tests start would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Runs that are killed leave an account of their steps; not in the home of whoever runs the tests.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="privacy-pipelines-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before JAX, which something imports, sets a chattier default
import_mlflow()  # before a test module imports it with its own, chattier, defaults

Cli = Callable[..., "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """What a command left behind: exit code, output, and its MLflow runs."""

    code: int
    out: str
    err: str
    uri: str
    experiment: str

    @property
    def rows(self) -> list[RunRow]:
        return read_rows(open_store(self.uri, self.experiment))

    @property
    def row(self) -> RunRow:
        (row,) = self.rows
        return row


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Calls `python -m pipelines.run` in this process, which saves importing the frameworks again and again."""
    from pipelines.runs import launch as run

    uri = f"sqlite:///{tmp_path / 'runs.db'}"

    def call(*overrides: str, experiment: str = "tests") -> Outcome:
        arguments = [f"tracking.uri={uri}", f"tracking.experiment={experiment}", "tracking.log_model=false"]
        # The command line wins over the defaults here.
        given = {item.partition("=")[0] for item in overrides}
        arguments = [item for item in arguments if item.partition("=")[0] not in given]
        monkeypatch.setattr(sys, "argv", ["pipelines.run", *overrides, *arguments])
        # Set first, so that what `main` leaves behind is undone even where the variable was absent.
        monkeypatch.setenv("HYDRA_FULL_ERROR", "")
        monkeypatch.delenv("HYDRA_FULL_ERROR")
        with pytest.raises(SystemExit) as stop:
            run.main()
        out, err = capfd.readouterr()
        # As the interpreter does it: a text goes to standard error, and is a failure.
        message = stop.value.code if isinstance(stop.value.code, str) else ""
        code = 1 if message else int(stop.value.code or 0)
        return Outcome(code, out, err + message, uri, experiment)

    return call


def run_here(command: list[str]) -> int:
    """The command of a recipe's sweep in this process, which has imported the frameworks already."""
    from pipelines.runs import launch as run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["pipelines.run", *command[4:]])
        with pytest.raises(SystemExit) as stop:
            run.main()
    return int(stop.value.code or 0)


def start(*overrides: str, uri: str, **options: object) -> subprocess.Popen[str]:
    """Starts the command line as a real process."""
    command = [sys.executable, "-m", "pipelines.run", *overrides, f"tracking.uri={uri}", "tracking.experiment=tests"]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload]


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without runs, as MLflow makes it, to copy: its migrations take longer than most tests."""
    database = tmp_path_factory.mktemp("template") / "mlflow.db"
    with store._opened(f"sqlite:///{database}", create=True):
        return database


@pytest.fixture(autouse=True)
def _copied_stores(migrated_database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New databases of this process are copies; in processes that tests start, MLflow makes them."""
    check = store._check_database

    def check_and_copy(uri: str, database: Path, *, create: bool) -> None:
        check(uri, database, create=create)
        if not database.stat().st_size:
            shutil.copyfile(migrated_database, database)

    monkeypatch.setattr(store, "_check_database", check_and_copy)
