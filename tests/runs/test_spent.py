"""What a private run spent is reported and kept when its store, disk, worker or process dies."""

import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from pipelines.core.errors import StoreError
from pipelines.privacy.guarantee import PrivacyGuarantee
from pipelines.privacy.mechanisms.base import PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism
from pipelines.runs.spent import Terms, account_for_dead, keep_for_dead
from pipelines.tracking import ledger
from pipelines.tracking.ledger import Entry, open_entries
from pipelines.tracking.mlflow_run import MlflowRun
from pipelines.tracking.orphans import process_tag
from pipelines.tracking.read import read_json, read_row, read_rows
from pipelines.tracking.store import Store, open_store
from pipelines.verify import main as verify
from tests.conftest import Cli, start

PLAN = PoissonGaussianMechanism(
    unit=PrivacyUnit.EXAMPLE, population=1000, sampling_probability=0.1, steps=100, noise_multiplier=2.0,
    clip_norm=1.0, delta=1e-5,
)  # fmt: skip
SPENT = r"([\d,]+) steps spent epsilon ([\d.]+) at delta 1e-05"
LONG = ("pipeline=dp_sgd", "privacy.noise_multiplier=20", "pipeline.epochs=100000", "tracking.log_model=false")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where accounts are kept, for this test alone."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / ledger.NAME


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"sqlite:///{tmp_path / 'runs.db'}", "tests")


def left_entry(store: Store, process: str, steps: int, *, alive: bool = False) -> Entry:
    """The account of a run that stopped after some steps, in a process of our choice."""
    tags = {"privacy.unit": "example", "process": process}
    run_id = store.client.create_run(store.experiment_id, tags=tags).info.run_id
    planned = PrivacyGuarantee.of(PLAN, simulated=False).to_dict()
    entry = Entry.open(run_id, uri=store.uri, terms=asdict(Terms(False, "")), planned=planned)
    entry.count(steps)
    text = entry.path.read_text().replace(process_tag()["process"], process)
    entry.path.write_text(text)
    if not alive and entry._file is not None:  # the lock goes with the process
        os.close(entry._file)
        entry._file = None
    return entry


@pytest.fixture
def dead() -> str:
    """A process of this host that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return f"{socket.gethostname()} {process.pid} 1.00"


@pytest.mark.parametrize(("counted", "since_boot", "steps"), [(40, True, 41), (100, True, 100), (40, False, 100)])
def test_a_dead_run_gets_the_epsilon_of_its_steps(
    store: Store, dead: str, monkeypatch: pytest.MonkeyPatch, counted: int, since_boot: bool, steps: int
) -> None:
    entry = left_entry(store, dead, counted)
    if not since_boot:  # after a power cut the count on the disk may be an old one
        monkeypatch.setattr(psutil, "boot_time", lambda: time.time() + 1)
    (line,) = account_for_dead(store)
    row, expected = read_row(store, entry.values["run_id"]), PrivacyGuarantee.of(PLAN.executed(steps), simulated=False)
    assert row.status == "KILLED"
    assert row.metrics["privacy/epsilon"] == expected.epsilon
    assert read_json(store, row.run_id, "privacy.json") == expected.to_dict()
    assert row.run_id in line
    assert (told := re.search(SPENT, line))
    assert int(told.group(1)) == steps
    assert account_for_dead(store) == []


def test_a_run_of_another_living_process_keeps_its_account(store: Store) -> None:
    other = psutil.Process(os.getppid())
    entry = left_entry(store, f"{socket.gethostname()} {other.pid} {other.create_time():.2f}", 3, alive=True)
    assert account_for_dead(store) == []
    assert entry.path.exists()
    entry.close()


def test_a_run_that_was_removed_from_its_store_is_forgotten(store: Store, dead: str) -> None:
    entry = left_entry(store, dead, 3)
    store.client.delete_run(entry.values["run_id"])
    assert account_for_dead(store) == []
    assert not entry.path.exists()


def test_a_guarantee_without_its_store_is_kept_and_verifiable(store: Store, dead: str) -> None:
    entry = left_entry(store, dead, 3)
    (line,) = keep_for_dead(store.uri)
    kept = Path(line.split(" kept in ")[1])
    assert verify([str(kept)]) == 0
    assert keep_for_dead(store.uri) == []  # told once
    account_for_dead(store)  # the store is back
    assert not kept.exists()
    assert not entry.path.exists()


def test_the_second_folder_serves_when_the_first_is_unwritable(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(ledger, "_folders", lambda: [tmp_path / "file", tmp_path / "second"])
    entry = Entry.open("0" * 32, uri=store.uri, terms={}, planned={"steps": 9})
    assert entry.path.parent == tmp_path / "second"
    assert entry.path.stat().st_mode & 0o077 == 0
    assert [found.steps for found in open_entries(store.uri)] == [1]


def test_a_failed_store_leaves_epsilon_on_terminal_and_disk(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise StoreError("tracking.uri=x: gone")

    monkeypatch.setattr(MlflowRun, "flush", fail)
    failed = cli("pipeline=dp_sgd", "privacy.epsilon=3", "pipeline.epochs=2")
    assert failed.code == 1
    assert failed.err.count("\n") == 1
    assert failed.row.run_id in failed.err
    assert re.search(f"{SPENT}; .* kept in .*{failed.row.run_id}", failed.err)
    assert failed.row.status == "FAILED"
    monkeypatch.undo()


@pytest.fixture
def server(tmp_path: Path, migrated_database: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A real MLflow server on a port of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shutil.copy(migrated_database, tmp_path / "server.db")
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{tmp_path}/server.db",
         "--artifacts-destination", str(tmp_path / "artifacts"), "--host", "127.0.0.1", "--port", str(port),
         "--workers", "1"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
            break
        except OSError:
            time.sleep(0.2)
    yield f"http://127.0.0.1:{port}", process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_server_that_dies_takes_no_knowledge_along(
    server: tuple[str, subprocess.Popen[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, process = server
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # a user's own patience counts
    run = start(*LONG, "evaluations=10000", uri=uri)
    wait_for(tmp_path / "server.db", "select count(*) from metrics", 1)
    os.killpg(process.pid, signal.SIGKILL)
    out, err = run.communicate(timeout=60)
    (run_id,) = query(tmp_path / "server.db", "select run_uuid from runs")[0]
    assert (run.returncode, out) == (1, "")
    assert err.count("\n") < 20
    assert re.search(f"run {run_id} .*{SPENT}", err)
    kept = Path(err.split(" kept in ")[1].strip())
    assert verify([str(kept)]) == 0
    # The next run in the store, which is back, tells it what it missed.
    back = replace(open_store(f"sqlite:///{tmp_path}/server.db", "tests"), uri=uri)
    assert run_id in account_for_dead(back)[0]
    assert read_row(back, run_id).status == "KILLED"


def test_an_interrupted_parallel_sweep_accounts_for_every_killed_run(tmp_path: Path, state: Path) -> None:
    database = tmp_path / "runs.db"
    sweep = start(
        "-m", *LONG[::2], LONG[3], "privacy.noise_multiplier=20,30", "evaluations=3", "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2", uri=f"sqlite:///{database}", start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        steps = [int(path.read_text()[: ledger.WIDTH]) for path in state.glob("*.ledger")]
        if len(steps) == 2 and min(steps) > 5:
            break
        time.sleep(0.2)
    os.killpg(sweep.pid, signal.SIGINT)
    _, err = sweep.communicate(timeout=60)
    assert sweep.returncode == 130
    assert err.count("\n") < 20
    store = open_store(f"sqlite:///{database}", "tests")
    rows = read_rows(store)
    assert {row.status for row in rows} == {"KILLED"}
    children = [row for row in rows if "privacy.unit" in row.tags]
    assert len(children) == 2
    for row in children:
        guarantee = read_json(store, row.run_id, "privacy.json")
        assert guarantee["steps"] > 5
        assert row.metrics["privacy/epsilon"] == guarantee["epsilon"]
        assert re.search(f"run {row.run_id} .*{SPENT}", err)
    assert not list(state.glob("*.ledger"))


def test_a_full_disk_leaves_no_run_open(tmp_path: Path, migrated_database: Path) -> None:
    room = tmp_path / "small"
    room.mkdir()
    size = (migrated_database.stat().st_size >> 10) + 220
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", room], capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        shutil.copy(migrated_database, room / "runs.db")
        run = start(*LONG, "evaluations=100000", uri=f"sqlite:///{room}/runs.db")
        out, err = run.communicate(timeout=120)
        rows = query(room / "runs.db", "select run_uuid, status from runs")
    finally:
        subprocess.run(["umount", "--lazy", room], check=True)
    assert (run.returncode, out) == (1, "")
    assert err.count("\n") == 1
    assert [status for _, status in rows] == ["FAILED"]
    assert re.search(f"disk is full.* run {rows[0][0]} .*{SPENT}", err)


def query(database: Path, text: str) -> list[tuple[str, ...]]:
    with sqlite3.connect(database, timeout=10) as connection:
        return connection.execute(text).fetchall()


def wait_for(database: Path, count: str, least: int) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if int(query(database, count)[0][0]) >= least:
            return
        time.sleep(0.2)
    raise AssertionError(f"{count} stays below {least}")
