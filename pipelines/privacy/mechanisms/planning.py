"""Builds a mechanism from the configuration or from privacy.json: the only place that chooses its kind."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.config.pipeline_settings import PrivatePipelineConfig
from pipelines.config.pipeline_table import PIPELINES
from pipelines.config.privacy_settings import AdaptiveConfig, BandedConfig, FixedConfig, PrivacyConfig, TreeConfig
from pipelines.core.errors import GuaranteeError, UserError
from pipelines.privacy.accounting.calibration import calibrate
from pipelines.privacy.mechanisms.banded import BandedMechanism
from pipelines.privacy.mechanisms.banded_noise import optimal_coefficients
from pipelines.privacy.mechanisms.base import AdaptiveClipping, Mechanism, NeighboringRelation, PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism
from pipelines.privacy.mechanisms.tree import TreeMechanism

KINDS: dict[str, type[Mechanism]] = {
    kind.name: kind for kind in (PoissonGaussianMechanism, TreeMechanism, BandedMechanism)
}
"""Every kind of mechanism by the name that privacy.json has for it."""


def public_plan(pipeline: PrivatePipelineConfig, privacy: PrivacyConfig, units: int) -> Mechanism:
    """Builds the plan of a private run, and checks that it follows from public values alone.

    If `privacy.population` is stated, the number of units present is private. Then the plan is also built for one unit
    more and for one fewer, and must be the same. Otherwise that number is treated as public, as the statement says.

    Args:
      pipeline: gives samples or cohorts, and steps.
      privacy: gives the mechanism, noise or target, clipping and delta.
      units: how many examples or users the data holds.

    Raises:
      UserError: as `plan_for`.
      GuaranteeError: the plan depends on the number of units present, although a population is stated.
    """
    present = (units,) if privacy.population is None else (units, max(units - 1, 1), units + 1)
    plan, *others = (plan_for(pipeline, privacy, number) for number in present)
    if any(other != plan for other in others):
        raise GuaranteeError(
            f"the plan follows the private number of units and not privacy.population={privacy.population}: one unit "
            "more or fewer would show in it; report this bug"
        )
    return plan


@dataclass(frozen=True, kw_only=True)
class _Schedule:
    """Numbers of the schedule: unit, population, units per step, steps, and the config key of the sample size."""

    unit: PrivacyUnit
    population: int
    sample: int
    steps: int
    field: str


def plan_for(pipeline: PrivatePipelineConfig, privacy: PrivacyConfig, units: int) -> Mechanism:
    """Builds the plan that a private pipeline will run, calibrated if a target epsilon is given.

    Args:
      pipeline: gives the expected sample, or the users of a round, and the number of steps.
      privacy: gives the mechanism, noise or target, clipping and delta.
      units: how many examples or users the data holds; the public population unless `privacy.population` states one.

    Raises:
      UserError: sampling rate above 1, more turns a tree than users, trees of one round, more bands than steps, delta
        not below 1/population, target out of reach, a stated population of less than half the units.
    """
    schedule = _schedule(pipeline, privacy, units)
    match privacy:
        case TreeConfig():
            plan: Mechanism = _tree(schedule, privacy)
        case BandedConfig():
            plan = _banded(schedule, privacy)
        case FixedConfig() | AdaptiveConfig():
            plan = _poisson(schedule, privacy)
    return plan if privacy.epsilon is None else calibrate(plan, privacy.epsilon)


def _schedule(pipeline: PrivatePipelineConfig, privacy: PrivacyConfig, units: int) -> _Schedule:
    row, population = PIPELINES[pipeline.name], _public_population(privacy, units)
    sample, length = getattr(pipeline, row.sample_size), getattr(pipeline, row.length)
    passes = row.length == "epochs"
    return _Schedule(
        unit=PrivacyUnit(str(row.unit)),
        population=population,
        sample=sample,
        steps=max(1, round(length * population / sample)) if passes else length,
        field=f"pipeline.{row.sample_size}",
    )


def _poisson(schedule: _Schedule, privacy: FixedConfig | AdaptiveConfig) -> PoissonGaussianMechanism:
    population, sample = schedule.population, schedule.sample
    if sample > population:
        raise UserError(
            f"{schedule.field}={sample} exceeds the population of {population} {schedule.unit}s, a sampling rate above "
            f"1; lower {schedule.field}"
        )
    return PoissonGaussianMechanism(
        unit=schedule.unit,
        population=population,
        sampling_probability=sample / population,
        steps=schedule.steps,
        noise_multiplier=privacy.noise_multiplier or 0.0,
        clip_norm=privacy.clip_norm,
        delta=privacy.delta,
        adaptive=_adaptive(privacy, sample),
    )


def _tree(schedule: _Schedule, privacy: TreeConfig) -> TreeMechanism:
    """Trees with the given restart, or the longest ones that no user joins twice."""
    plan = TreeMechanism(
        population=schedule.population,
        clients_per_round=schedule.sample,
        steps=schedule.steps,
        restart_every=privacy.restart_every or max(1, schedule.population // schedule.sample),
        noise_multiplier=privacy.noise_multiplier or 0.0,
        clip_norm=privacy.clip_norm,
        delta=privacy.delta,
    )
    plan.require_worthwhile()
    return plan


def _banded(schedule: _Schedule, privacy: BandedConfig) -> BandedMechanism:
    """As many groups as bands, and the coefficients that suit so many steps."""
    population, sample, bands = schedule.population, schedule.sample, privacy.bands
    if bands > schedule.steps:
        raise UserError(f"privacy.bands={bands} exceeds the {schedule.steps} steps of the run; lower privacy.bands")
    if bands * sample > population:
        most = population // sample
        raise UserError(
            f"privacy.bands={bands} with {schedule.field}={sample} of {population} {schedule.unit}s has groups smaller "
            "than samples, a sampling rate above 1; "
            + (f"lower privacy.bands, to {most} at most, or {schedule.field}" if most else f"lower {schedule.field}")
        )
    return BandedMechanism(
        unit=schedule.unit,
        population=population,
        sampling_probability=bands * sample / population,
        steps=schedule.steps,
        noise_multiplier=privacy.noise_multiplier or 0.0,
        clip_norm=privacy.clip_norm,
        delta=privacy.delta,
        coefficients=optimal_coefficients(bands, schedule.steps),
    )


def mechanism_from(values: Mapping[str, Any]) -> Mechanism:
    """Reads the mechanism of a privacy.json; older files have no `mechanism` and know only the Gaussian one.

    Raises:
      KeyError: a value is missing.
      UserError: a value is out of range.
    """
    common: dict[str, Any] = {
        key: values[key] for key in ("population", "steps", "noise_multiplier", "clip_norm", "delta")
    }
    common |= {"unit": PrivacyUnit(values["unit"]), "relation": NeighboringRelation(values["relation"])}
    return KINDS[values.get("mechanism", PoissonGaussianMechanism.name)].from_schedule(values, common)


def _public_population(privacy: PrivacyConfig, units: int) -> int:
    population = privacy.population or units
    if units > 2 * population:
        # The limit on delta follows from the population; a false small population would allow a large delta.
        raise UserError(
            f"privacy.population={population} is far below the units present; state a number near the truth"
        )
    return population


def _adaptive(privacy: FixedConfig | AdaptiveConfig, sample: int) -> AdaptiveClipping | None:
    """The count's noise defaults to 5 % of the sample (Andrew et al. 2021, section 3.1, has 1/20)."""
    if isinstance(privacy, FixedConfig):
        return None
    return AdaptiveClipping(
        target_quantile=privacy.target_quantile,
        learning_rate=privacy.clip_learning_rate,
        count_stddev=privacy.count_stddev or 0.05 * sample,
    )
