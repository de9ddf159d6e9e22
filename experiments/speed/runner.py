"""Runs subjects in fresh processes, in turn, and leaves no process behind."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from experiments.speed.environments import ROOT, interpreter
from experiments.speed.subject import Subject

TIMEOUT_S = 900
GRACE_S = 5
REASON_LENGTH = 160


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The measurements of one process.

    Attributes:
      subject: its name.
      repeat: counted from 1.
      metrics: by name; empty if it failed.
      facts: that the engine reported.
      failure: one line; None if the subject succeeded.
      wall_s: seconds of the whole process.
    """

    subject: str
    repeat: int
    metrics: dict[str, float]
    facts: dict[str, str]
    failure: str | None
    wall_s: float


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Shared by all measurements.

    Attributes:
      scratch: a folder that is deleted at the end of the benchmark.
      data: the archive that probes and peers read.
      folder: of the raw MNIST files for the command line, or "null".
      threads: of every engine.
      quick: whether subjects run in their short form.
    """

    scratch: Path
    data: Path
    folder: str
    threads: int
    quick: bool

    def command(self, subject: Subject, repeat: int) -> tuple[list[str], dict[str, str]]:
        """A subject's command line and environment variables."""
        fields = {"{scratch}": str(self.scratch), "{repeat}": str(repeat), "{folder}": self.folder}
        command = [str(interpreter(subject.environment)), *(_filled(part, fields) for part in subject.program)]
        if subject.options is not None:
            options = {**subject.options, **(subject.quick if self.quick else {})}
            options |= {"data": str(self.data), "threads": self.threads}
            command.append(json.dumps(_filled(options, fields)))
        # The folders of peers must not shadow the project's modules, and the user's path must not shadow theirs.
        variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return command, variables | {key: _filled(value, fields) for key, value in subject.variables.items()}


def take_turns(
    subjects: Sequence[Subject], repeats: int, setting: Setting, on_measurement: Callable[[Measurement], None]
) -> list[Measurement]:
    """Measures in turns, A B C, A B C, ...: a temporary slowdown of the machine then affects all subjects."""
    found = []
    for repeat in range(1, repeats + 1):
        for subject in subjects:
            if subject.repeats is not None and repeat > subject.repeats:
                continue
            if subject.prime and repeat == 1:
                measure(subject, 0, setting)
            found.append(measure(subject, repeat, setting))
            on_measurement(found[-1])
    return found


def measure(subject: Subject, repeat: int, setting: Setting) -> Measurement:
    """Runs one subject once. A failure gives a measurement without metrics, and the other subjects continue."""
    command, variables = setting.command(subject, repeat)
    # Files instead of pipes: a stray grandchild that keeps a pipe open would block this process.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.perf_counter()
        with _process(command, env=variables, stdout=out, stderr=err) as process:
            try:
                code = process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                code = None
            wall_s = time.perf_counter() - start
        out.seek(0)
        err.seek(0)
        answer = _answer(out.read()) if subject.options is not None else {}
        failure = _failure(code, answer, err.read())
    answer = answer or {}
    metrics = {} if failure else {"wall_s": wall_s, **answer.get("metrics", {})}
    facts: dict[str, str] = answer.get("facts", {})
    return Measurement(
        subject=subject.name, repeat=repeat, metrics=metrics, facts=facts, failure=failure, wall_s=wall_s
    )


@contextlib.contextmanager
def _process(command: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended at the end of the block, with all processes that it started."""
    # In its own process group: Ctrl-C reaches this process only, which then ends the other in order.
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True, **options)
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
    try:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
    finally:  # a second interrupt must not leave them running
        for relative in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                relative.kill()
        # Processes that stay in its group after its end, such as a worker of TensorFlow Federated.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _filled(value: Any, fields: Mapping[str, str]) -> Any:
    """Fills the fields into every text of plain data."""
    if isinstance(value, dict):
        return {key: _filled(item, fields) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, fields) for item in value]
    if isinstance(value, str):
        for field, text in fields.items():
            value = value.replace(field, text)
    return value


def _answer(output: str) -> dict[str, Any] | None:
    """The last line that a probe or peer reported; libraries may print before and after it."""
    for line in reversed(output.splitlines()):
        if line.startswith('{"metrics"'):
            answer: dict[str, Any] = json.loads(line)
            return answer
    return None


def _failure(code: int | None, answer: dict[str, Any] | None, errors: str) -> str | None:
    if code is None:
        return f"took longer than {TIMEOUT_S} s"
    if code == 0 and answer is not None:
        return None
    lines = [line for line in errors.splitlines() if line.strip()]
    reason = lines[-1].strip() if lines else "nothing on standard error"
    return f"exit code {code}: {reason}"[:REASON_LENGTH]
