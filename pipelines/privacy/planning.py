"""From configuration to mechanism plan."""

from pipelines.config import DpFedAvgConfig, DpSgdConfig, PrivacyConfig
from pipelines.errors import UserError
from pipelines.privacy.calibration import calibrate
from pipelines.privacy.plan import AdaptiveClipping, MechanismPlan, PrivacyUnit
from pipelines.privacy.tree_plan import TreePlan


def plan_for(pipeline: DpSgdConfig | DpFedAvgConfig, privacy: PrivacyConfig, units: int) -> MechanismPlan:
    """Builds the plan that a private pipeline will run, calibrated if a target epsilon is given.

    Args:
      pipeline: gives the expected sample and the number of steps.
      privacy: gives noise or target, clipping and delta.
      units: how many examples or users the data holds; the public population unless `privacy.population` states one.

    Raises:
      UserError: sampling rate above 1, delta not below 1/population, target out of reach, a stated population of
        less than half the units.
    """
    population = _public_population(privacy, units)
    unit = PrivacyUnit(privacy.unit_of(pipeline.name))
    if isinstance(pipeline, DpSgdConfig):
        sample, field = pipeline.batch_size, "batch_size"
        steps = max(1, round(pipeline.epochs * population / sample))
    else:
        sample, field = pipeline.clients_per_round, "clients_per_round"
        steps = pipeline.rounds
    if sample > population:
        hint = ", or start from pipeline=dp_sgd_users" if isinstance(pipeline, DpSgdConfig) and unit == "user" else ""
        raise UserError(
            f"pipeline.{field}={sample} exceeds the population of {population} {unit}s, a sampling rate above 1; "
            f"lower pipeline.{field}{hint}"
        )
    plan = MechanismPlan(
        unit=unit,
        population=population,
        sampling_probability=sample / population,
        steps=steps,
        noise_multiplier=privacy.noise_multiplier or 0.0,
        clip_norm=privacy.clip_norm,
        delta=privacy.delta,
        adaptive=_adaptive(privacy, sample),
    )
    return plan if privacy.epsilon is None else calibrate(plan, privacy.epsilon)


def tree_plan_for(pipeline: DpFedAvgConfig, privacy: PrivacyConfig, users: int) -> TreePlan:
    """Builds the plan of tree aggregation, calibrated if a target epsilon is given.

    Args:
      pipeline: gives rounds and the users of each.
      privacy: gives noise or target, the clip norm, delta, and when trees restart; None lets them grow as long as no
        user would join one twice.
      users: how many the data holds; the public population unless `privacy.population` states one.

    Raises:
      UserError: more turns a tree than users, delta not below 1/population, target out of reach, a stated population
        of less than half the users.
    """
    population = _public_population(privacy, users)
    plan = TreePlan(
        population=population,
        clients_per_round=pipeline.clients_per_round,
        steps=pipeline.rounds,
        restart_every=privacy.restart_every or max(1, population // pipeline.clients_per_round),
        noise_multiplier=privacy.noise_multiplier or 0.0,
        clip_norm=privacy.clip_norm,
        delta=privacy.delta,
    )
    return plan if privacy.epsilon is None else calibrate(plan, privacy.epsilon)


def _public_population(privacy: PrivacyConfig, units: int) -> int:
    population = privacy.population or units
    if units > 2 * population:
        # Delta is judged by the population; an invented small one would allow any delta.
        raise UserError(
            f"privacy.population={population} is far below the units present; state a number near the truth"
        )
    return population


def _adaptive(privacy: PrivacyConfig, sample: int) -> AdaptiveClipping | None:
    """The count's noise defaults to 5 % of the sample (Andrew et al. 2021, section 3.1, has 1/20)."""
    if privacy.clipping == "fixed":
        return None
    return AdaptiveClipping(
        target_quantile=privacy.target_quantile if privacy.target_quantile is not None else 0.5,
        learning_rate=privacy.clip_learning_rate or 0.2,
        count_stddev=privacy.count_stddev or 0.05 * sample,
    )
