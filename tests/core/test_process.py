"""The life of a process: the garbage collector rests at its start, and its end leaves nothing unsaid or undone."""

import gc
import subprocess
import sys

import pytest

from pipelines.core.process import pause_collector, resume_collector
from pipelines.runs import execute as execution
from tests.conftest import Cli


def test_collector_rests_until_the_first_step(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Watcher(execution._Watcher):
        def on_round(self, record: object) -> None:
            seen.append(gc.isenabled())
            super().on_round(record)  # type: ignore[arg-type]
            seen.append(gc.isenabled())

    monkeypatch.setattr(execution, "_Watcher", Watcher)
    assert cli("pipeline=sgd", "pipeline.epochs=0.1", "pipeline.batch_size=64").code == 0
    assert seen[:4] == [False, True, True, True]
    assert gc.isenabled()


def test_collector_works_again_after_a_failed_run(cli: Cli) -> None:
    assert cli("pipeline=dp_sgd", "privacy.epsilon=0").code == 1
    assert gc.isenabled()


def test_collector_spares_imports_but_not_later_garbage() -> None:
    code = (
        "import gc, weakref, mlflow; from pipelines.core.process import pause_collector, resume_collector\n"
        "pause_collector(); resume_collector(); assert gc.get_freeze_count() > 100_000\n"
        "class Node: pass\n"
        "pause_collector(); node = Node(); node.self = node; seen = weakref.ref(node); del node\n"
        "resume_collector(); gc.collect(); assert seen() is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pausing_the_collector_twice_is_pausing_once() -> None:
    pause_collector()
    pause_collector()
    resume_collector()
    assert gc.isenabled()


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
