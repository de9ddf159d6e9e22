"""A limit on the CPU time of an accountant, because some never answer."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN_S = 1.0
"""A limit fires again after this time, because the first TimeoutError may have ended only an inner limit's work."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in the main thread after `seconds` of CPU time; other threads have no limit.

    It counts CPU time and not wall time: whether accountants agree must not depend on the load of the machine. Limits
    nest: the limit that ends first fires, and the outer limit continues with its remaining time.

    Args:
      seconds: > 0.

    Raises:
      TimeoutError: this time has passed.
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
