"""Asks every accountant about a plan before anything is logged, with limits on time and memory.

For extreme values the accountants of the libraries overflow, contradict each other, or allocate terabytes. Here such a
failure happens before the run starts, and becomes one line. Otherwise it would end a run that has trained for hours.
"""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.privacy.accounting.cross_check import require_not_too_low
from pipelines.privacy.accounting.epsilon import accountant_results
from pipelines.privacy.accounting.group import group_epsilon
from pipelines.privacy.accounting.time_limit import time_limit
from pipelines.privacy.mechanisms.base import Mechanism
from pipelines.privacy.several_units import GROUPS

TIME_LIMIT_S = 180
"""CPU time of this process: twice what ten million steps take, if they can be accounted for."""
MEMORY_LIMIT = 8 * 2**30
"""Bytes in addition to those in use."""
LEAST, MOST = 1e-30, 1e30
"""Limits of clip norm and noise. Engines hold them as float32: outside, noise would be zero or infinite."""


def judge(plan: Mechanism) -> None:
    """Computes all numbers that a run of the plan will report about its privacy; the results are cached.

    Raises:
      UserError: noise or clip norm that float32 cannot hold, or an epsilon that is not finite.
      GuaranteeError: the accountants contradict the epsilon.
    """
    sigma = plan.update_noise_multiplier
    if not (LEAST <= plan.clip_norm <= MOST and LEAST <= sigma * plan.clip_norm <= MOST):
        raise UserError(
            f"privacy.clip_norm={plan.clip_norm:g} with a noise multiplier of {sigma:g} is out of the range of "
            f"32-bit numbers; the clip norm and its product with the noise must lie in {LEAST:g} to {MOST:g}, "
            "for example with privacy.clip_norm=1"
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
    """Turns a failure of the accountants into a one-line error, and limits their time and memory.

    Args:
      subject: the settings at fault, such as "privacy.noise_multiplier=1e-12".
      remedy: what to set instead.

    Raises:
      UserError: an accountant failed, or reached a limit.
    """
    try:
        with _bounded_memory(), time_limit(TIME_LIMIT_S):
            yield
    except (ArithmeticError, ValueError, RuntimeError, MemoryError, TimeoutError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{subject} is beyond what the accountants can compute ({reason}); {remedy}") from None


@contextmanager
def _bounded_memory() -> Iterator[None]:
    """Lets allocations beyond the limit fail, so that the machine does not; only if /proc states the memory in use."""
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
