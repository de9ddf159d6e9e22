"""A bound on what this process may compute before an accountant answers: some never would."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN_S = 1.0
"""A limit fires again after this: the first TimeoutError may have ended an inner limit's work only."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in the main thread after `seconds` of this process' CPUs; elsewhere there is no limit.

    Not of the clock: on a busy machine whether accountants agree must not depend on who else computes. Limits nest: the
    one that ends first fires, and the outer one goes on with what is left of it.

    Args:
      seconds: > 0.

    Raises:
      TimeoutError: they have passed.
    """
    left = signal.getitimer(signal.ITIMER_PROF)[0]
    if threading.current_thread() is not threading.main_thread() or 0 < left <= seconds:
        yield
        return

    def expire(_signum: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"no answer within {seconds:g} s of computing")

    start, before = time.process_time(), signal.signal(signal.SIGPROF, expire)
    signal.setitimer(signal.ITIMER_PROF, seconds, AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        if left:
            signal.setitimer(signal.ITIMER_PROF, max(left - (time.process_time() - start), 1e-3), AGAIN_S)
