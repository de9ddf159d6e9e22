"""The life cycle of the worker, with real processes: no worker is left behind, however our process ends."""

import asyncio
import gc
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.core.errors import UserError
from pipelines.engines.federated import runtime
from pipelines.engines.federated.engine import missing_engine, tf, tff

START = """
import sys, threading, time
from pipelines.engines.federated import runtime
from pipelines.engines.federated.engine import tf, tff
def start():
    worker = runtime.ensure_worker(1)
    assert tff.tensorflow.computation(lambda: tf.constant(7))() == 7
    print(worker.process.pid, worker.home.process.pid, worker.home._folder, flush=True)
"""
ENDINGS = {
    "exception": "start()\nraise RuntimeError('on purpose')",
    # SIGINT is ignored here, as under nohup; and the first worker is started from a thread that ends before it.
    "return": (
        "thread = threading.Thread(target=start); thread.start(); thread.join(); time.sleep(0.3)\n"
        "assert runtime.ensure_worker(1).alive\nruntime.close()\nruntime.close()\nstart()"
    ),
    "killed": "start()\ntime.sleep(100)",
}
PATIENCE_S = 90


def ignore_sigint() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def process_that(ending: str) -> Iterator[subprocess.Popen[str]]:
    """A process that starts a worker and ends as told. One a test: most of its time goes into importing TensorFlow."""
    process = subprocess.Popen(
        [sys.executable, "-c", START + ENDINGS[ending]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=ignore_sigint if ending == "return" else None,
    )
    with process:  # closes its pipes and waits for it
        try:
            yield process
        finally:
            process.kill()


def is_gone(pid: int) -> bool:
    """Whether the process has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def await_gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while not is_gone(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return is_gone(pid)


def assert_nothing_is_left(line: str) -> None:
    """Neither worker nor relay nor the folder of their socket."""
    worker, relay, folder = line.split()
    assert await_gone(int(worker))
    assert await_gone(int(relay))
    assert not Path(folder).exists()


@pytest.mark.parametrize(("ending", "code"), [("return", 0), ("exception", 1)])
def test_worker_and_pipes_end_with_the_process(ending: str, code: int) -> None:
    with process_that(ending) as process:
        out, err = process.communicate(timeout=PATIENCE_S)  # waits until no process holds the pipes
    assert process.returncode == code, err
    assert out.split()
    for line in out.splitlines():
        assert_nothing_is_left(line)
    assert (err == "") == (code == 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_worker_ends_with_a_process_that_is_killed(number: signal.Signals) -> None:
    with process_that("killed") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert not any(is_gone(int(pid)) for pid in line.split()[:2])
        process.send_signal(number)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == -number
    assert_nothing_is_left(line)


def test_one_worker_serves_until_it_dies_and_is_then_replaced() -> None:
    first = runtime.ensure_worker(None)
    assert runtime.ensure_worker(None) is first
    first.process.kill()
    first.process.wait()
    second = runtime.ensure_worker(None)
    assert second.alive
    assert second is not first


def test_a_worker_whose_relay_died_is_replaced_with_it() -> None:
    first = runtime.ensure_worker(None)
    assert first.home.process is not None
    first.home.process.kill()
    first.home.process.wait()
    with pytest.raises(UserError, match="worker died"):
        tff.tensorflow.computation(lambda: tf.constant(3))()
    second = runtime.ensure_worker(None)
    assert tff.tensorflow.computation(lambda: tf.constant(3))() == 3
    assert is_gone(first.process.pid)
    assert second.home is not first.home
    assert not Path(first.home._folder).exists()


def test_a_worker_that_has_grown_is_replaced_between_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    first = runtime.ensure_worker(None)
    monkeypatch.setattr(runtime, "RESIDENT_BYTES", 1)
    assert runtime.ensure_worker(None) is not first
    assert is_gone(first.process.pid)


def test_a_dead_worker_is_one_clear_error() -> None:
    worker = runtime.ensure_worker(None)
    worker.process.kill()
    worker.process.wait()
    with pytest.raises(UserError, match="worker died"):
        tff.tensorflow.computation(lambda: tf.constant(3))()


def test_what_outlives_its_worker_is_let_go_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    worker, complaints = runtime.Worker(1), list[Any]()
    executor = worker._executor({})
    several = range(runtime.DISPOSED_AT_ONCE)
    values = [asyncio.run(executor.create_value(number, tff.types.to_type(np.int32))) for number in several]
    worker.close()
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    del values
    gc.collect()
    assert complaints == []


def test_missing_engine_names_the_remedy() -> None:
    assert "federated" in str(missing_engine("Linux", "x86_64"))
    assert "no wheels for Darwin arm64" in str(missing_engine("Darwin", "arm64"))


def test_a_computation_is_sent_once_and_never_confused(monkeypatch: pytest.MonkeyPatch) -> None:
    stub, sent = runtime.ensure_worker(None).stub, []
    send = stub.create_value

    def watch(request: Any) -> Any:
        if request.value.WhichOneof("value") == "computation":
            sent.append(request)
        return send(request)

    monkeypatch.setattr(stub, "create_value", watch)
    double = tff.tensorflow.computation(lambda x: 2 * x, np.int32)
    square = tff.tensorflow.computation(lambda x: x * x, np.int32)
    assert [double(3), double(4), double(5)] == [6, 8, 10]
    assert len(sent) == 1
    assert [square(3), double(3), square(4)] == [9, 6, 16]
    assert len(sent) == 4
