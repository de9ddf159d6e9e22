"""The garbage collector rests while a run starts, and works while it trains."""

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


def test_it_works_again_after_a_run_that_failed(cli: Cli) -> None:
    assert cli("pipeline=dp_sgd", "privacy.epsilon=0").code == 1
    assert gc.isenabled()


def test_what_imports_brought_is_exempt_but_later_garbage_is_not() -> None:
    code = (
        "import gc, weakref, mlflow; from pipelines.core.process import pause_collector, resume_collector\n"
        "pause_collector(); resume_collector(); assert gc.get_freeze_count() > 100_000\n"
        "class Node: pass\n"
        "pause_collector(); node = Node(); node.self = node; seen = weakref.ref(node); del node\n"
        "resume_collector(); gc.collect(); assert seen() is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pausing_twice_is_pausing_once() -> None:
    pause_collector()
    pause_collector()
    resume_collector()
    assert gc.isenabled()
