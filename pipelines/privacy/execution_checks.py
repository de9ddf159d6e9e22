"""Checks whether a run did what its plan says. They run on every private run before its guarantee is written.

An epsilon is computed from a plan. It is true only if training followed that plan exactly. These checks compare the
plan with what an engine returns, so a bug in an engine, or between engine and accounting, fails the run.
"""

from dataclasses import replace
from math import isclose
from typing import Any

from pipelines.core.errors import GuaranteeError
from pipelines.privacy.mechanisms.base import Mechanism

EVENT_TOLERANCE = 1e-5
"""Relative tolerance, because TensorFlow computes noise multipliers in float32."""


def require_executed(planned: Mechanism, executed: Mechanism | None, steps: int) -> None:
    """Compares the plan that was accounted for in advance with the plan that an engine reports.

    Args:
      planned: from `public_plan`.
      executed: of the engine's `Fit`.
      steps: number of steps reported to `on_round`.

    Raises:
      GuaranteeError: they differ in more than the steps, or the steps are not the reported ones.
    """
    expected = replace(planned, steps=steps)
    if executed == expected:
        return
    changed = (
        "the engine does not say what it ran"
        if executed is None
        else "; ".join(
            f"{name}={getattr(executed, name)} instead of {value}"
            for name, value in vars(expected).items()
            if getattr(executed, name) != value
        )
    )
    raise GuaranteeError(f"the run differs from its plan ({changed}): its epsilon would be false; report this bug")


def require_event(plan: Mechanism, event: Any) -> None:
    """Compares a plan with the noise that a library reports for one step, or for one node of a tree.

    Args:
      plan: with or without adaptive clipping, or of trees.
      event: `dp_accounting.DpEvent` of one step without its sampling, or of one node: a Gaussian, or a composition of
        Gaussians.

    Raises:
      GuaranteeError: the library's noise multiplier differs, or the event is of another kind.
    """
    from dp_accounting import dp_event as events

    parts = event.events if isinstance(event, events.ComposedDpEvent) else [event]
    if not all(isinstance(part, events.GaussianDpEvent) for part in parts):
        raise GuaranteeError(
            f"the engine reports {event}, which is no Gaussian mechanism: the epsilon would be false; report this bug"
        )
    if any(part.noise_multiplier == 0 for part in parts):
        found = 0.0
    else:
        found = float(sum(part.noise_multiplier**-2 for part in parts) ** -0.5)
    claimed = plan.effective_noise_multiplier
    if not isclose(found, claimed, rel_tol=EVENT_TOLERANCE):
        raise GuaranteeError(
            f"the engine reports noise_multiplier={found:g} where the plan has {claimed:g}: the epsilon would be "
            "false; report this bug"
        )
