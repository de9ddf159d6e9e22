"""The store: found from every folder, private, and given up on in one line."""

import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.core.paths import REPOSITORY
from pipelines.tracking.address import resolve_uri
from pipelines.tracking.store import PATIENCE, open_store


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that accepts connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_default_store_is_in_the_repository_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_uri(None) == f"sqlite:///{REPOSITORY}/mlflow.db"
    assert (REPOSITORY / "pyproject.toml").exists()


def test_relative_database_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_uri("sqlite:///runs/a.db") == f"sqlite:///{tmp_path}/runs/a.db"
    assert resolve_uri(f"sqlite:///{tmp_path}/a.db") == f"sqlite:///{tmp_path}/a.db"


@pytest.mark.parametrize("uri", ["mlruns", "file:///runs", "sqlite:///", ""])
def test_what_is_no_store_is_refused(uri: str) -> None:
    with pytest.raises(UserError, match=r"tracking\.uri="):
        resolve_uri(uri)


def test_experiment_keeps_artifacts_beside_the_database(uri: str, tmp_path: Path) -> None:
    store = open_store(uri, "adult")
    experiment = store.client.get_experiment(store.experiment_id)
    assert experiment.artifact_location == (tmp_path / "mlartifacts").as_uri()
    assert open_store(uri, "adult").experiment_id == store.experiment_id


def test_missing_experiment_is_named_with_those_that_exist(uri: str) -> None:
    with pytest.raises(UserError, match=r"tracking\.experiment=nope .*Default"):
        open_store(uri, "nope", create=False)


def test_missing_database_is_not_created_by_a_reader(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train first"):
        open_store(f"sqlite:///{tmp_path / 'a.db'}", "digits", create=False)
    assert not list(tmp_path.iterdir())


def test_deleted_experiment_is_named(uri: str) -> None:
    store = open_store(uri, "gone")
    store.client.delete_experiment(store.experiment_id)
    with pytest.raises(UserError, match=r"tracking\.experiment=gone was deleted"):
        open_store(uri, "gone")


def test_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"tracking\.uri=.* is not writable \(") as error:
        open_store(f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}", "digits")
    assert "\n" not in str(error.value)


def test_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("dear diary, this is not a database")
    with pytest.raises(UserError, match="is not an sqlite database"):
        open_store(f"sqlite:///{tmp_path / 'notes.db'}", "digits")
    assert (tmp_path / "notes.db").read_text().startswith("dear diary")


def test_closed_port_is_one_line_within_seconds() -> None:
    start = time.monotonic()
    with pytest.raises(UserError, match=r"tracking\.uri=http://127\.0\.0\.1.*does not answer") as error:
        open_store(f"http://127.0.0.1:{closed_port()}", "digits")
    assert "\n" not in str(error.value)
    assert time.monotonic() - start < 15
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == PATIENCE["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]


def test_silent_server_is_given_up_on(silent_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.tracking.store.FIRST_ANSWER_S", "1")
    with pytest.raises(UserError, match="does not answer"):
        open_store(silent_server, "digits")


def test_processes_that_start_together_share_a_fresh_database(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from pipelines.tracking.store import PATIENCE, open_store\n"
        "from pipelines.tracking.listeners import open_run\n"
        "from pipelines.tracking.run_log import RunStart\n"
        "store = open_store(sys.argv[1], 'digits')\n"
        "with open_run(store, RunStart(name='a')) as log:\n"
        "    log.on_metrics(1, {'test/accuracy': 0.5})\n"
        "print(store.experiment_id)\n"
    )
    command = [sys.executable, "-c", script, f"sqlite:///{tmp_path}/new/mlflow.db"]
    jobs = [
        subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [job.communicate(timeout=120) for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], outputs
    assert len({out for out, _ in outputs}) == 1
    assert [err for _, err in outputs] == ["", ""], "a run prints nothing of MLflow's"


def test_tracking_imports_no_engine_and_mlflow_only_on_use() -> None:
    script = (
        "import sys\n"
        "import pipelines.tracking.listeners, pipelines.tracking.parent_run, pipelines.tracking.tensorboard\n"
        "import pipelines.tracking.finished\n"
        "print([m for m in ('mlflow', 'tensorboard', 'torch', 'tensorflow', 'pandas') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def usual_mask() -> Iterator[None]:
    before = os.umask(0o002)
    yield
    os.umask(before)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_store_is_for_its_owner_alone(tmp_path: Path, usual_mask: None) -> None:
    database = tmp_path / "new" / "runs.db"
    open_store(f"sqlite:///{database}", "tests")
    assert _mode(database.parent) == 0o700
    assert [_mode(database), _mode(database.parent / "runs.db.lock")] == [0o600, 0o600]
    assert _mode(database.parent / "mlartifacts") == 0o700


def test_an_old_store_keeps_the_modes_of_its_owner(tmp_path: Path, usual_mask: None) -> None:
    (tmp_path / "mlartifacts").mkdir(mode=0o755)
    (tmp_path / "runs.db").touch(mode=0o664)
    open_store(f"sqlite:///{tmp_path / 'runs.db'}", "tests")
    assert (_mode(tmp_path / "runs.db"), _mode(tmp_path / "mlartifacts")) == (0o664, 0o755)
