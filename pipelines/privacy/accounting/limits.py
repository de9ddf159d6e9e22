"""Every accountant is asked about a plan before anything is logged, within bounds of time and memory.

At the ends of their ranges upstream accountants overflow, contradict themselves, or ask for terabytes. Whatever they
would do to a run that is open, or has trained for hours, happens here, and becomes one line.
"""

import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from types import FrameType
from typing import Any

from pipelines.core.errors import UserError
from pipelines.privacy.accounting.cross_check import require_not_too_low
from pipelines.privacy.accounting.epsilon import accountant_results
from pipelines.privacy.accounting.group import group_epsilon
from pipelines.privacy.mechanisms.base import Mechanism
from pipelines.privacy.several_units import GROUPS

TIME_LIMIT_S = 180
"""Of this process' own computing: twice what ten million steps take where they can be accounted for."""
MEMORY_LIMIT = 8 * 2**30
"""Bytes beyond those that are in use."""
LEAST, MOST = 1e-30, 1e30
"""Of clip norm and noise, which engines hold as float32: beyond, noise would vanish or be infinite."""


def judge(plan: Mechanism) -> None:
    """Computes all that a run of the plan will say of its privacy; the answers are kept.

    Raises:
      UserError: noise or clip norm that float32 cannot hold, or an epsilon that is not finite.
      GuaranteeError: the accountants contradict the epsilon.
    """
    sigma = plan.update_noise_multiplier
    if not (LEAST <= plan.clip_norm <= MOST and LEAST <= sigma * plan.clip_norm <= MOST):
        raise UserError(
            f"privacy.clip_norm={plan.clip_norm:g} with a noise multiplier of {sigma:g} leaves the range of 32-bit "
            f"numbers; bring the clip norm and its product with the noise into {LEAST:g} to {MOST:g}, as "
            "privacy.clip_norm=1 does"
        )
    found = accountant_results(plan)
    require_not_too_low(found)
    if found[0].epsilon is None or not isfinite(found[0].epsilon):
        raise ArithmeticError(f"{found[0].accountant} has an epsilon of {found[0].epsilon}")
    plan.quick_epsilon()
    for members in GROUPS:
        group_epsilon(plan, members)


@contextmanager
def accountable(subject: str, remedy: str) -> Iterator[None]:
    """Turns what accountants cannot do into one line, and bounds what they may take.

    Args:
      subject: the settings at fault, such as "privacy.noise_multiplier=1e-12".
      remedy: what to set instead.

    Raises:
      UserError: an accountant failed, or reached a bound.
    """
    try:
        with _bounded_memory(), _bounded_time():
            yield
    except (ArithmeticError, ValueError, RuntimeError, MemoryError, TimeoutError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{subject} is beyond what the accountants can compute ({reason}); {remedy}") from None


@contextmanager
def _bounded_time() -> Iterator[None]:
    """Raises TimeoutError in the main thread; elsewhere, and where others use the timer, there is no limit."""
    if threading.current_thread() is not threading.main_thread() or signal.getitimer(signal.ITIMER_VIRTUAL)[0]:
        yield
        return

    def expire(_signum: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"no answer within {TIME_LIMIT_S} s of computing")

    before: Callable[..., Any] | int | None = signal.signal(signal.SIGVTALRM, expire)
    signal.setitimer(signal.ITIMER_VIRTUAL, TIME_LIMIT_S, 1)  # again, should the first one meet a second opinion
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextmanager
def _bounded_memory() -> Iterator[None]:
    """Lets allocations beyond the limit fail, rather than the machine; where the system tells what is in use."""
    used = Path("/proc/self/statm")
    if not used.exists():
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = int(used.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") + MEMORY_LIMIT
    if soft == resource.RLIM_INFINITY or soft > limit:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
