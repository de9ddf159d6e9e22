"""The mechanism audit: measures the noise and the sensitivity that really reach the parameters.

It tests the run's own engine in two ways.

- On the run's own model (see `own_model` and `contributions`): the contribution of each canary to all weights must be
  its own, and at most a clip norm. The noise on every tensor must be that of the plan, and fresh in every step.
- On a linear problem with a weight for each of many units (see `probe`): participation must follow the plan's sampling.
  A threshold separates the units that joined a step from the others, and its errors give a lower bound on epsilon. The
  bound presumes the plan's sampling, or turns, and the composition of the accountant.

Two mechanisms need more:

- Adaptive clipping: the clip norm is measured on clipped units. Its changes show the noise on the count, which is
  tested like the noise on updates. The lower bound uses the updates alone, not the counts. An adversary who also sees
  the counts learns more, so the bound is lower than it could be.
- Trees: the releases of the rounds are turned back into independent draws of a node's size. Noise with any other
  correlation fails the tests. The bound is exact for an adversary who sees the releases of the rounds. The accountant
  assumes an adversary who sees every node.

Source: Nasr et al. 2023, arXiv:2302.07956, sections 4 and 5.
"""

import numpy as np

from pipelines.auditing.contributions import OwnModelRuns
from pipelines.auditing.finding import AuditError, Finding
from pipelines.auditing.lower_bounds import (
    chi_square_interval,
    gaussian_mu_lower_bound,
)
from pipelines.auditing.noise_checks import FALSE_ALARM, noise_faults
from pipelines.auditing.observation import EMPTY_STEPS, Observation, fresh_seeds
from pipelines.auditing.own_model import OwnModel
from pipelines.auditing.probe import CALM, LEAST_COUNTS, Floats, Probe, resolved_noise
from pipelines.config.schema import Config
from pipelines.core.errors import UserError
from pipelines.model.spec import ModelSpec
from pipelines.privacy.mechanisms.base import Mechanism, epsilon_at_noise

THRESHOLD = 0.5
"""Half of a contribution; fixed before anything is seen."""
ROUNDING = 1e-3
"""Relative tolerance of a contribution: float32, and the guard of clipping against division by zero."""


def require_auditable(plan: Mechanism | None) -> Mechanism:
    """Returns the plan, or refuses a plan without noise before anything is trained.

    Raises:
      UserError: there is no noise to measure.
    """
    if plan is None or plan.noise_multiplier == 0:
        raise UserError("audit=mechanism measures Gaussian noise, but this run has none; use audit=none")
    return plan


def audit_mechanism(
    config: Config, plan: Mechanism, spec: ModelSpec, *, claim: float, confidence: float, threads: int
) -> Finding:
    """Audits the engine that `config` names, with `plan`.

    Args:
      config: of the run.
      plan: with the steps that ran.
      spec: of the run's model.
      claim: the guarantee's epsilon.
      confidence: of the lower bound. At 95 % it refutes a correct run at most once in 20 audits; with the usual numbers
        of observations about once in 50, or less often.
      threads: CPU threads.

    Raises:
      UserError: a plan without noise.
      AuditError: the same seed gave two runs with different numbers of steps.
    """
    probe = Probe.of(require_auditable(plan))
    runs = OwnModelRuns(OwnModel(config=config, plan=plan, spec=spec, threads=threads), fresh_seeds())
    seen = Observation.of(config, probe, threads)
    if len(seen.with_units.parallel) != len(seen.without_units.parallel):
        raise AuditError("audit=mechanism REFUTES THIS RUN: one seed gave two different numbers of steps")
    return judge(seen, plan, runs, claim=claim, confidence=confidence)


def judge(
    seen: Observation, plan: Mechanism, runs: OwnModelRuns | None = None, *, claim: float, confidence: float
) -> Finding:
    """Turns observations into a bound, an estimate and a verdict.

    Args:
      seen: observation of the linear problem.
      plan: of the run.
      runs: of the run's own model; None leaves this part out.
      claim: the guarantee's epsilon.
      confidence: of the lower bound.
    """
    with_unit, without = seen.arms
    mu = 0.0
    if len(with_unit) and len(without):
        mu = gaussian_mu_lower_bound(
            false_positives=int((without > THRESHOLD).sum()),
            negatives=len(without),
            false_negatives=int((with_unit <= THRESHOLD).sum()),
            positives=len(with_unit),
            confidence=confidence,
        )
    sizes = seen.sizes
    sensitivity = float(sizes.max()) if len(sizes) else 0.0
    deviation, interval = _spread(seen.noise)
    resolved = resolved_noise(plan) == plan.update_noise_multiplier
    bound = 0.0
    if resolved:
        bound = plan.lower_bound(mu)
    return Finding(
        audit="mechanism",
        claim=claim,
        epsilon_lower_bound=bound,
        epsilon_estimate=_estimate(seen, plan, deviation / sensitivity) if sensitivity and resolved else None,
        confidence=confidence,
        faults=(*([] if runs is None else (f"on the run's model, {fault}" for fault in runs.faults())), *_faults(seen)),
        evidence={
            **({} if runs is None else runs.evidence()),
            "bound_resolved": resolved,
            "observations_with_unit": len(with_unit),
            "observations_without": len(without),
            "mu_lower_bound": mu,
            "sensitivity_in_clip_norms": [float(sizes.min()) if len(sizes) else 0.0, sensitivity],
            "noise_multiplier_claimed": seen.probe.plan.update_noise_multiplier,
            "noise_multiplier_measured": deviation,
            "noise_multiplier_interval": interval,
            "noise_interval_false_alarm": FALSE_ALARM,
            **_count_evidence(seen),
        },
    )


def _spread(noise: Floats) -> tuple[float, list[float]]:
    """Standard deviation of draws around zero, and its confidence interval."""
    deviation = float(np.sqrt(np.mean(noise**2)))
    low, high = chi_square_interval(noise.size, 1 - FALSE_ALARM)
    return deviation, [deviation / high**0.5, deviation / low**0.5]


def _count_evidence(seen: Observation) -> dict[str, object]:
    if seen.probe.adaptive is None or not len(seen.count_noise):
        return {}
    deviation, interval = _spread(seen.count_noise)
    return {
        "count_observations": len(seen.count_noise),
        "count_stddev_claimed": seen.probe.adaptive.count_stddev,
        "count_stddev_measured": deviation,
        "count_stddev_interval": interval,
    }


def _estimate(seen: Observation, plan: Mechanism, sigma: float) -> float:
    """Epsilon of the measured noise, by the accountant of the guarantee.

    Args:
      seen: observation of the linear problem.
      plan: of the run.
      sigma: measured noise of updates divided by their measured sensitivity.
    """
    if plan.adaptive is not None and seen.probe.adaptive is not None and len(seen.count_noise):
        # The probe has its own size of noise on the count: only the ratio of measured to requested noise matters.
        ratio = max(_spread(seen.count_noise)[0], 1e-12) / seen.probe.adaptive.count_stddev
        sigma = float((sigma**-2 + (2 * ratio * plan.adaptive.count_stddev) ** -2) ** -0.5)
    return epsilon_at_noise(plan, sigma)


def _faults(seen: Observation) -> list[str]:
    """Every difference between the observation and the plan."""
    plan, sigma, sizes, found = seen.probe.plan, seen.probe.plan.update_noise_multiplier, seen.sizes, []
    steps = len(seen.with_units.parallel)
    rounding = ROUNDING + 1e-6 * sigma * steps**0.5  # of float32 weights that noise has moved
    if steps != plan.steps or len(seen.alone.parallel) != EMPTY_STEPS:
        found.append(f"{steps} and {len(seen.alone.parallel)} steps ran of {plan.steps} and {EMPTY_STEPS} planned")
    least = 0 if seen.probe.adaptive else 1
    if len(sizes) and not (least - rounding <= sizes.min() and sizes.max() <= 1 + rounding):
        found.append(f"one {plan.unit} contributes {sizes.min():.4g} to {sizes.max():.4g} clip norms, not 1")
    found += _clip_norm_faults(seen, rounding)
    if seen.joined[:, plan.population :].any():
        found.append("weights that belong to no unit move, or noise does not follow its stream")
    found += plan.participation_faults(seen.joined[:, : plan.population], FALSE_ALARM)
    found += noise_faults(seen.noise, sigma)
    if seen.probe.adaptive is not None:
        found += _count_faults(seen.count_noise, seen.probe.adaptive.count_stddev)
    return found + [f"where samples are empty, {fault}" for fault in noise_faults(seen.noise_alone, sigma)]


def _clip_norm_faults(seen: Observation, rounding: float) -> list[str]:
    """Checks that the first measured clip norm is as near to the plan's as the steps before it allow."""
    first = int(np.argmax(seen.known))
    level = float(seen.levels[first])
    if seen.known.any() and abs(np.log(level)) > CALM / 2 * first + rounding:
        return [f"the clip norm of step {first + 1} is {level:.4g} times the first one"]
    return []


def _count_faults(noise: Floats, stddev: float) -> list[str]:
    if len(noise) < LEAST_COUNTS // 4:
        return [f"only {len(noise)} steps show the noise on the count of clipped units"]
    # In units of one contribution, which is 1/2, as in the accounting.
    return [f"on the count of clipped units, {fault}" for fault in noise_faults(2 * noise[:, None], 2 * stddev)]
