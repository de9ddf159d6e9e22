"""Child processes that end with this one, however it ends."""

import queue
import subprocess
import threading
from typing import Any


def start_child(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """Starts a process from a thread that outlives it, without streams of ours and deaf to the terminal's Ctrl-C.

    The kernel's parent-death signal, which the process asks for itself, is about the parent *thread*: from a
    short-lived one the child would die early. A `preexec_fn` could ask for it, but may deadlock in a process that has
    threads, as TensorFlow's always has.

    Args:
      command: program and arguments.
      options: of `subprocess.Popen`.

    Raises:
      OSError: it cannot be run.
    """
    started: queue.Queue[subprocess.Popen[bytes] | OSError] = queue.Queue()

    def guard() -> None:
        null = subprocess.DEVNULL
        try:
            process = subprocess.Popen(
                command, stdin=null, stdout=null, stderr=null, start_new_session=True, **options
            )  # fmt: skip
        except OSError as error:
            started.put(error)
            return
        started.put(process)
        process.wait()

    threading.Thread(target=guard, name="child-guard", daemon=True).start()
    outcome = started.get()
    if isinstance(outcome, OSError):
        raise outcome
    return outcome
