"""The end of a process that has traced TensorFlow graphs or imported half a Python index."""

import atexit
import os
import select
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from pipelines.streams import keep_streams, lost_output


def exit_after(main: Callable[[], int | None]) -> NoReturn:
    """Runs a command line and ends the process with its exit code, the way multiprocessing ends its own.

    Threads are joined, exit handlers run and streams are flushed as ever. What does not happen is that Python takes
    itself apart: freeing one by one what TFF has traced took three seconds, and destroyed its executors after the
    modules that they use.
    """
    keep_streams()
    try:
        code = main()
    except SystemExit as request:
        if isinstance(request.code, str):  # a last line, which Python prints
            raise
        code = request.code
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError):
            stream.flush()
    if (lost := lost_output()) is not None:  # runs are in the log all the same
        code = code or 1
        with suppress(OSError):
            print(f"error: standard output could not be written ({lost.strerror}); give it room", file=sys.stderr)
            sys.stderr.flush()
    os._exit(code or 0)


def mute_unread_streams() -> None:
    """Points streams that nobody reads any more, as after `| head`, to nowhere."""
    for name in ("stdout", "stderr"):
        with suppress(OSError):  # not a file, as in a test
            poll = select.poll()
            poll.register(getattr(sys, name).fileno(), 0)
            if any(event & select.POLLERR for _, event in poll.poll(0)):
                setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
