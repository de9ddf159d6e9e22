"""Input and output of a probe, and the memory of processes as the kernel reports it."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

MEGABYTE = 1e6
WORKER = "worker_binary"


def read_options() -> dict[str, Any]:
    """Returns the JSON object that the benchmark passes as the only argument."""
    options: dict[str, Any] = json.loads(sys.argv[1])
    return options


def report(metrics: dict[str, float], facts: dict[str, str] | None = None) -> None:
    """Prints the measurements as the one line that the benchmark reads."""
    print(json.dumps({"metrics": metrics, "facts": facts or {}}), flush=True)


class Stopwatch:
    """An `on_round` that measures the time between its calls, not only the time of training.

    Attributes:
      seconds: of each round; the first runs from construction to the end of the first round.
    """

    def __init__(self, look: Callable[[int], None] | None = None) -> None:
        """Starts.

        Args:
          look: called after each round with its number; its time is not counted.
        """
        self.seconds: list[float] = []
        self._look = look
        self._since = time.perf_counter()

    def __call__(self, record: Any) -> None:
        """Ends a round."""
        self.seconds.append(time.perf_counter() - self._since)
        if self._look is not None:
            self._look(record.step)
        self._since = time.perf_counter()


def resident_mb(pid: int | None = None) -> float:
    """Resident memory of a process now; of this one by default."""
    return _status(pid, "VmRSS")


def peak_mb(pid: int | None = None) -> float:
    """Greatest resident memory of a process since its start, or since `restart_peak`.

    `getrusage` does not work here: a child's value starts from its parent's size.
    """
    return _status(pid, "VmHWM")


def restart_peak(pid: int | None = None) -> None:
    """Resets the kernel's record of a process's peak."""
    Path(f"/proc/{pid or os.getpid()}/clear_refs").write_text("5")


def worker_pid() -> int:
    """Returns TensorFlow Federated's worker process of this process.

    Raises:
      RuntimeError: there is none.
    """
    for child in psutil.Process().children(recursive=True):
        if any(WORKER in word for word in child.cmdline()[:1]):
            return int(child.pid)
    raise RuntimeError("this process has no worker of TensorFlow Federated")


def _status(pid: int | None, field: str) -> float:
    for line in Path(f"/proc/{pid or os.getpid()}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024 / MEGABYTE
    raise RuntimeError(f"process {pid} has no {field}; it has probably ended")
