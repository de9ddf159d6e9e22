"""Child processes that end with this one, however it ends."""

import queue
import subprocess
import threading
from collections.abc import Mapping, Sequence


def start_child(
    command: list[str], *, env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Starts a process from a thread that outlives it, without our streams and without the terminal's Ctrl-C.

    The process itself asks for the kernel's parent-death signal. This signal is about the parent *thread*: started
    from a short-lived thread, the child would die early. A `preexec_fn` could ask for the signal too, but may deadlock
    in a process that has threads, such as TensorFlow's.

    Args:
      command: program and arguments.
      env: its environment; None takes ours.
      pass_fds: descriptors that it inherits.

    Raises:
      OSError: the program cannot be run.
    """
    started: queue.Queue[subprocess.Popen[bytes] | OSError] = queue.Queue()

    def guard() -> None:
        null = subprocess.DEVNULL
        try:
            process = subprocess.Popen(
                command, stdin=null, stdout=null, stderr=null, start_new_session=True, env=env, pass_fds=pass_fds
            )
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
