"""From configuration to mechanism plan."""

from pipelines.config.pipeline_settings import DpFedAvgConfig, PrivateCentralConfig, PrivatePipelineConfig
from pipelines.config.pipeline_table import PIPELINES
from pipelines.config.privacy_settings import AdaptiveConfig, PrivacyConfig, TreeConfig
from pipelines.core.errors import GuaranteeError, UserError
from pipelines.privacy.accounting.calibration import calibrate
from pipelines.privacy.mechanisms.poisson_gaussian import AdaptiveClipping, PoissonGaussianMechanism, PrivacyUnit
from pipelines.privacy.mechanisms.tree import Mechanism, TreeMechanism

WORTHWHILE = 8
"""Rounds of a tree whose node count, 4, is well below them; what a remedy proposes."""


def public_plan(pipeline: PrivatePipelineConfig, privacy: PrivacyConfig, units: int) -> Mechanism:
    """Builds the plan of a private run, and shows that it is made of public values alone.

    Where `privacy.population` is stated, the number of units present is private: the plan is made anew for one unit
    more and one fewer, and must be the same. Where it is not, that number is treated as public, as the statement says.

    Args:
      pipeline: gives samples or cohorts, and steps.
      privacy: gives the mechanism, noise or target, clipping and delta.
      units: how many examples or users the data holds.

    Raises:
      UserError: as `plan_for` and `tree_plan_for`.
      GuaranteeError: the plan follows the number of units present although a population is stated.
    """
    present = (units,) if privacy.population is None else (units, max(units - 1, 1), units + 1)
    plan, *others = (_plan(pipeline, privacy, number) for number in present)
    if any(other != plan for other in others):
        raise GuaranteeError(
            f"the plan follows the private number of units and not privacy.population={privacy.population}: one unit "
            "more or fewer would show in it; report this bug"
        )
    return plan


def _plan(pipeline: PrivatePipelineConfig, privacy: PrivacyConfig, units: int) -> Mechanism:
    if isinstance(pipeline, DpFedAvgConfig) and isinstance(privacy, TreeConfig):
        return tree_plan_for(pipeline, privacy, units)
    return plan_for(pipeline, privacy, units)


def plan_for(pipeline: PrivatePipelineConfig, privacy: PrivacyConfig, units: int) -> PoissonGaussianMechanism:
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
    protected = PIPELINES[pipeline.name].unit
    assert protected is not None, "a private pipeline protects a unit"
    unit = PrivacyUnit(protected)
    if isinstance(pipeline, PrivateCentralConfig):
        sample, field = pipeline.batch_size, "batch_size"
        steps = max(1, round(pipeline.epochs * population / sample))
    else:
        sample, field = pipeline.clients_per_round, "clients_per_round"
        steps = pipeline.rounds
    if sample > population:
        raise UserError(
            f"pipeline.{field}={sample} exceeds the population of {population} {unit}s, a sampling rate above 1; "
            f"lower pipeline.{field}"
        )
    plan = PoissonGaussianMechanism(
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


def tree_plan_for(pipeline: DpFedAvgConfig, privacy: TreeConfig, users: int) -> TreeMechanism:
    """Builds the plan of tree aggregation, calibrated if a target epsilon is given.

    Args:
      pipeline: gives rounds and the users of each.
      privacy: gives noise or target, the clip norm, delta, and when trees restart; None lets them grow as long as no
        user would join one twice.
      users: how many the data holds; the public population unless `privacy.population` states one.

    Raises:
      UserError: more turns a tree than users, trees of one round, delta not below 1/population, target out of reach, a
        stated population of less than half the users.
    """
    population = _public_population(privacy, users)
    plan = TreeMechanism(
        population=population,
        clients_per_round=pipeline.clients_per_round,
        steps=pipeline.rounds,
        restart_every=privacy.restart_every or max(1, population // pipeline.clients_per_round),
        noise_multiplier=privacy.noise_multiplier or 0.0,
        clip_norm=privacy.clip_norm,
        delta=privacy.delta,
    )
    if plan.restart_every == 1 < plan.steps:
        raise UserError(
            f"{_short_trees(plan)}, which is plain noise in every round without amplification by sampling; "
            f"{_longer_trees(plan)}, or use privacy=fixed"
        )
    return plan if privacy.epsilon is None else calibrate(plan, privacy.epsilon)


def remark_on(plan: Mechanism | None) -> str | None:
    """One line on a plan that is valid and hardly sensible; None where there is nothing to say."""
    if isinstance(plan, TreeMechanism) and plan.restart_every == 2 < plan.steps:
        return (
            f"{_short_trees(plan)}, which hardly saves noise over privacy=fixed without its amplification by sampling; "
            f"{_longer_trees(plan)}"
        )
    return None


def _short_trees(plan: TreeMechanism) -> str:
    rounds = "one round" if plan.restart_every == 1 else "two rounds"
    return (
        f"privacy=tree with pipeline.clients_per_round={plan.clients_per_round} of {plan.population} users and "
        f"privacy.restart_every={plan.restart_every} has trees of {rounds}"
    )


def _longer_trees(plan: TreeMechanism) -> str:
    """The remedy: a schedule with longer trees."""
    longest = plan.population // plan.clients_per_round
    if longest > 2:
        return f"raise privacy.restart_every, up to {longest}"
    few = max(1, plan.population // WORTHWHILE)
    return (
        f"lower pipeline.clients_per_round ({few} gives trees of {plan.population // few} rounds) or take more users "
        "(partition.clients)"
    )


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
    if not isinstance(privacy, AdaptiveConfig):
        return None
    return AdaptiveClipping(
        target_quantile=privacy.target_quantile,
        learning_rate=privacy.clip_learning_rate,
        count_stddev=privacy.count_stddev or 0.05 * sample,
    )
