"""How a process ends: with everything said and done, and without taking itself apart."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.tracking.read import read_rows
from pipelines.tracking.store import open_store
from tests.conftest import start


@pytest.mark.parametrize(
    ("body", "code", "err"),
    [("pass", 0, ""), ("return 3", 3, ""), ("sys.exit(4)", 4, ""), ("sys.exit('no')", 1, "no\n")],
)
def test_handlers_run_threads_are_joined_and_output_is_flushed(body: str, code: int, err: str) -> None:
    script = (
        "import atexit, sys, threading, time\n"
        "from pipelines.core.process import exit_after\n"
        "atexit.register(lambda: print('handler', end=''))\n"
        "def main():\n"
        "    threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()\n"
        f"    {body}\n"
        "exit_after(main)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "thread\nhandler", err)


def test_modules_are_not_taken_apart() -> None:
    script = (
        "import sys\n"
        "from pipelines.core.process import exit_after\n"
        "class Costly:\n"
        "    def __del__(self): print('freed')\n"
        "sys.costly = Costly()\n"
        "exit_after(lambda: 0)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout == b""


def test_a_sweep_with_a_closed_output_is_interrupted(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    with start("-m", "pipeline=sgd", "pipeline.epochs=1", "seed=0,1,2,3,4,5,6,7", uri=uri) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "accuracy" in process.stdout.readline()
        process.stdout.close()  # as `head -1` does
        err = process.stderr.read()
    assert process.returncode == 130
    assert "interrupted: the sweep is marked KILLED" in err
    assert "Traceback" not in err
    store = open_store(uri, "tests")
    (parent,) = store.client.search_runs([store.experiment_id], "tags.`mlflow.runName` LIKE 'sweep%'")
    assert parent.info.status == "KILLED"
    assert 1 <= len(read_rows(store, parent_id=parent.info.run_id)) < 8
