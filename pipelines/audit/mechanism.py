"""The mechanism audit: what noise and sensitivity really reach the parameters.

It trains the run's own engine on a problem of canaries alone (see `probe`), observes every contribution under its
noise, and turns how well a threshold tells the units that joined from those that did not into a lower bound on epsilon.
It presumes Poisson sampling and that steps compose as the accountant says; clipping and noise it takes from nobody.

Source: Nasr et al. 2023, arXiv:2302.07956, sections 4 and 5.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pipelines.audit.bounds import (
    binomial_p_value,
    chi_square_interval,
    epsilon_at_noise,
    gaussian_mu_lower_bound,
    mechanism_lower_bound,
)
from pipelines.audit.finding import AuditError, Finding
from pipelines.audit.probe import Floats, Moves, Probe, secret_seed
from pipelines.config import Config
from pipelines.errors import UserError
from pipelines.privacy.plan import MechanismPlan
from pipelines.privacy.tree_plan import Plan

FALSE_ALARM = 1e-6
"""Probability with which any one of the checks blames a correct mechanism."""
THRESHOLD = 0.5
"""Fixed before anything is seen: half of a contribution."""
JOINED = 0.01
"""Least noise-free contribution, in clip norms, that counts as taking part."""
ROUNDING = 1e-3
"""How far a contribution may be from the clip norm: float32, and the clip's guard against division by zero."""
EMPTY_STEPS = 8


@dataclass(frozen=True)
class Observation:
    """Three runs of the engine on one probe.

    Attributes:
      loud: every unit there.
      silent: the same seed, inputs of zero.
      alone: a single silent unit, so that most samples are empty.
    """

    probe: Probe
    loud: Moves
    silent: Moves
    alone: Moves

    @classmethod
    def of(cls, config: Config, probe: Probe, threads: int) -> "Observation":
        """Runs the engine; nobody but this function ever knows the seed."""
        seed, units = secret_seed(), probe.plan.population
        loud = probe.run(config, threads, units=units, silent=False, seed=seed)
        silent = probe.run(config, threads, units=units, silent=True, seed=seed)
        alone = probe.lasting(EMPTY_STEPS).run(config, threads, units=1, silent=True, seed=secret_seed())
        return cls(probe, loud, silent, alone)

    @property
    def shifts(self) -> Floats:
        """What each row's unit contributed along its direction, free of noise, (steps, rows)."""
        return self.loud.towards - self.silent.towards

    @property
    def contributions(self) -> Floats:
        """Length of what each row's unit contributed, (steps, rows)."""
        return np.hypot(self.shifts, (self.loud.across - self.silent.across)[:, :-1])

    @property
    def joined(self) -> NDArray[np.bool_]:
        """Whether each row's unit took part, (steps, rows)."""
        return self.contributions > JOINED

    @property
    def noise(self) -> Floats:
        """All noise of the loud run, (steps, 2 rows + 1), in clip norms."""
        return np.concatenate([self.loud.towards - self.shifts * self.joined, self.loud.across], axis=1)


def require_auditable(plan: Plan | None) -> MechanismPlan:
    """Returns the plan; refuses what this audit knows nothing of, before anything is trained.

    Raises:
      UserError: not a plan of Poisson samples and Gaussian noise.
    """
    if not isinstance(plan, MechanismPlan) or plan.noise_multiplier == 0:
        raise UserError(
            "audit=mechanism measures Gaussian noise on Poisson samples, of which this run has none; drop the audit"
        )
    if plan.adaptive is not None:
        raise UserError(
            "audit=mechanism needs a fixed clip norm; use privacy=fixed, or audit=one_run or canary_clients"
        )
    return plan


def audit_mechanism(config: Config, plan: Plan, *, claim: float, confidence: float, threads: int) -> Finding:
    """Audits the engine that `config` names, as it would run `plan`.

    Args:
      config: of the run.
      plan: with the steps that ran.
      claim: the guarantee's epsilon.
      confidence: of the lower bound. At 95 % it refutes a correct run at most once in 20 audits; with the
        arms' usual sizes once in 50 to 400.
      threads: CPU threads.

    Raises:
      UserError: not a plan of Poisson samples and Gaussian noise.
      AuditError: the same seed gave runs of different length.
    """
    own = require_auditable(plan)
    probe = Probe.of(own)
    seen = Observation.of(config, probe, threads)
    if len(seen.loud.towards) != len(seen.silent.towards):
        raise AuditError("audit=mechanism REFUTES THIS RUN: one seed gave two different numbers of steps")
    return judge(seen, own, claim=claim, confidence=confidence)


def judge(seen: Observation, plan: MechanismPlan, *, claim: float, confidence: float) -> Finding:
    """Turns what was observed into a bound, an estimate and a verdict."""
    joined, noise = seen.joined, seen.noise
    with_unit, without = seen.loud.towards[joined], seen.loud.towards[~joined]
    mu = 0.0
    if len(with_unit) and len(without):
        mu = gaussian_mu_lower_bound(
            false_positives=int((without > THRESHOLD).sum()),
            negatives=len(without),
            false_negatives=int((with_unit <= THRESHOLD).sum()),
            positives=len(with_unit),
            confidence=confidence,
        )
    sizes = seen.contributions[joined]
    sensitivity = float(sizes.max()) if len(sizes) else 0.0
    deviation = float(np.sqrt(np.mean(noise**2)))
    low, high = chi_square_interval(noise.size, 1 - FALSE_ALARM)
    return Finding(
        audit="mechanism",
        claim=claim,
        epsilon_lower_bound=mechanism_lower_bound(plan, mu),
        epsilon_estimate=epsilon_at_noise(plan, deviation / sensitivity) if sensitivity else None,
        confidence=confidence,
        faults=tuple(_faults(seen, sizes)),
        evidence={
            "observations_with_unit": len(with_unit),
            "observations_without": len(without),
            "mu_lower_bound": mu,
            "sensitivity_in_clip_norms": [float(sizes.min()) if len(sizes) else 0.0, sensitivity],
            "noise_multiplier_claimed": seen.probe.plan.noise_multiplier,
            "noise_multiplier_measured": deviation,
            "noise_multiplier_interval": [deviation / high**0.5, deviation / low**0.5],
            "noise_interval_false_alarm": FALSE_ALARM,
        },
    )


def _faults(seen: Observation, sizes: Floats) -> list[str]:
    """Every way in which what was seen is not what the plan says."""
    plan, found = seen.probe.plan, []
    units, steps = plan.population, len(seen.loud.towards)
    rounding = ROUNDING + 1e-6 * plan.noise_multiplier * steps**0.5  # of float32 weights that noise has moved
    if steps != plan.steps or len(seen.alone.towards) != EMPTY_STEPS:
        found.append(f"{steps} and {len(seen.alone.towards)} steps ran of {plan.steps} and {EMPTY_STEPS} planned")
    if len(sizes) and not (1 - rounding <= sizes.min() and sizes.max() <= 1 + rounding):
        found.append(f"one {plan.unit} contributes {sizes.min():.4g} to {sizes.max():.4g} clip norms, not 1")
    if seen.joined[:, units:].any():
        found.append("weights of nobody move, or noise does not follow its stream")
    count, chance = int(seen.joined[:, :units].sum()), plan.sampling_probability
    if binomial_p_value(count, units * steps, chance) < FALSE_ALARM:
        found.append(f"units join with probability {count / (units * steps):.4g}, not {chance:.4g}")
    return found + noise_faults(seen.noise, plan.noise_multiplier) + [
        f"where samples are empty, {fault}"
        for fault in noise_faults(seen.alone.across, plan.noise_multiplier)
    ]  # fmt: skip


def noise_faults(noise: Floats, sigma: float) -> list[str]:
    """How draws, (steps, coordinates), differ from independent N(0, sigma^2).

    Scale over all, over each step and over each coordinate; correlation of each step with the next and of coordinates
    with each other. Each check has the false alarm rate `FALSE_ALARM`.
    """
    scaled = noise / sigma
    steps, coordinates = scaled.shape
    squares, found = scaled**2, []
    scales = (
        ("", squares.sum(), steps * coordinates),
        (" in some step", squares.sum(axis=1), coordinates),
        (" on some weight", squares.sum(axis=0), steps),
    )
    for where, sums, degrees in scales:
        low, high = chi_square_interval(degrees, 1 - FALSE_ALARM / np.size(sums))
        ratio = np.atleast_1d(sums) / degrees
        if not (low <= ratio.min() and ratio.max() <= high):
            worst = ratio[np.argmax(np.abs(np.log(np.maximum(ratio, 1e-300))))]
            found.append(f"noise{where} has a multiplier of {sigma * worst**0.5:.4g}, not {sigma:.4g}")
            break  # the later ones would say the same
    if found:
        return found
    limit = float(special.ndtri(1 - FALSE_ALARM / 2))
    # Along the step before, a step of fresh noise is N(0, 1), whatever came before.
    along = (scaled[1:] * scaled[:-1]).sum(axis=1) / np.sqrt(squares[:-1].sum(axis=1))
    if abs(along.sum()) > limit * np.sqrt(steps - 1):
        found.append("noise of one step is correlated with the next")
    low, high = chi_square_interval(steps, 1 - FALSE_ALARM)
    if not low <= (scaled.sum(axis=1) ** 2).sum() / (steps * coordinates) <= high:
        found.append("noise is correlated among weights")
    return found
