"""Noise for a target epsilon, and plans from configuration."""

from dataclasses import replace

import pytest

from pipelines.config.pipeline_settings import PrivatePipelineConfig
from pipelines.config.privacy_settings import PrivacyConfig
from pipelines.core.errors import UserError
from pipelines.privacy.accounting.calibration import calibrate
from pipelines.privacy.mechanisms.base import AdaptiveClipping, PrivacyUnit
from pipelines.privacy.mechanisms.planning import plan_for
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism
from tests.privacy.conftest import adaptive, dp_fed_avg, dp_sgd, dp_sgd_users, privacy


def plan(q: float, steps: int, population: int = 60_000) -> PoissonGaussianMechanism:
    return PoissonGaussianMechanism(
        unit=PrivacyUnit.EXAMPLE, population=population, sampling_probability=q, steps=steps, noise_multiplier=0.0,
        clip_norm=1.0, delta=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("q", "steps", "target", "sigma"),
    [
        (1 / 15, 600, 1, 6.196), (1 / 15, 600, 2, 3.391), (1 / 15, 600, 3, 2.433),
        (0.1, 100, 2, 2.25), (0.1, 100, 4, 1.39), (0.1, 100, 8, 0.94),
    ],
)  # fmt: skip
def test_noise_matches_the_reference_and_never_misses_the_target(
    q: float, steps: int, target: float, sigma: float
) -> None:
    found = calibrate(plan(q, steps), target)
    assert found.noise_multiplier == pytest.approx(sigma, abs=5e-3)
    assert target - 5e-3 < found.epsilon() <= target


def test_targets_that_no_noise_reaches_are_refused() -> None:
    with pytest.raises(UserError, match=r"privacy.epsilon=1e-06 cannot be reached"):
        calibrate(plan(1 / 15, 600), 1e-6)
    with pytest.raises(UserError, match=r"privacy.epsilon=1e\+06 needs a noise multiplier below 0.2"):
        calibrate(plan(1 / 15, 600), 1e6)


def test_adaptive_clipping_reaches_every_target_that_its_count_allows() -> None:
    # 60 of 359 users, count_stddev 3: total noise up to 6 is possible, and epsilon 0.5 needs 5.19.
    clipping = AdaptiveClipping(target_quantile=0.5, learning_rate=0.2, count_stddev=3.0)
    fixed = replace(plan(60 / 359, 25, population=359), delta=1e-4)
    adaptive = calibrate(replace(fixed, adaptive=clipping), 0.5)
    assert adaptive.noise_multiplier == calibrate(fixed, 0.5).noise_multiplier == pytest.approx(5.19, abs=0.01)
    assert adaptive.adaptive == clipping


def test_central_steps_and_rate_follow_the_public_population() -> None:
    # 20 epochs of 60,000 in samples of 512: 20 * 60000 / 512 = 2343.75 steps.
    found = plan_for(dp_sgd(), privacy(), units=60_000)
    assert (found.unit, found.steps, found.expected_batch_size) == (PrivacyUnit.EXAMPLE, 2344, pytest.approx(512))


def test_one_unit_changes_nothing_under_a_stated_population() -> None:
    plans = {plan_for(dp_sgd(), privacy(population=60_000), units=n) for n in (59_999, 60_000, 60_001)}
    assert len(plans) == 1


def test_a_central_plan_over_users_counts_their_population() -> None:
    # 3 passes over 1,000 users, 50 at a time: 60 steps.
    settings = dp_sgd_users(batch_size=50, epochs=3)
    found = plan_for(settings, privacy(), units=1000)
    assert isinstance(found, PoissonGaussianMechanism)
    assert (found.unit, found.steps, found.sampling_probability) == (PrivacyUnit.USER, 60, 0.05)
    stated = privacy(population=1000, epsilon=3.0, noise_multiplier=None)
    plans = {plan_for(settings, stated, units=n) for n in (999, 1000, 1001)}
    assert len(plans) == 1
    (same,) = plans
    assert same == plan_for(dp_fed_avg(rounds=60), stated, units=1000)


def test_a_federated_plan_protects_users() -> None:
    found = plan_for(dp_fed_avg(), privacy(), units=1000)
    assert isinstance(found, PoissonGaussianMechanism)
    assert (found.unit, found.steps, found.sampling_probability, found.clip_norm) == (
        PrivacyUnit.USER,
        30,
        0.05,
        0.5,
    )


def test_adaptive_clipping_defaults_to_five_percent_of_the_cohort() -> None:
    found = plan_for(dp_fed_avg(), adaptive(), units=1000)
    assert found.adaptive == AdaptiveClipping(target_quantile=0.5, learning_rate=0.2, count_stddev=2.5)


@pytest.mark.parametrize(
    ("settings", "wishes", "message"),
    [
        (dp_sgd(batch_size=1001), privacy(), "pipeline.batch_size=1001 exceeds the population of 1000 examples"),
        (dp_sgd_users(batch_size=1001), privacy(), "pipeline.batch_size=1001 exceeds the population of 1000 users"),
        (dp_fed_avg(clients_per_round=1001), privacy(), "pipeline.clients_per_round=1001 exceeds the population"),
        (dp_sgd(batch_size=10), privacy(delta=1e-3), r"privacy.delta=0.001 must lie in \(0, 0.001\)"),
        (dp_sgd(batch_size=10), privacy(population=400), "privacy.population=400 is far below the units present"),
        (dp_fed_avg(), adaptive(count_stddev=0.4), "privacy.count_stddev=0.4 must exceed half"),
    ],
)
def test_plans_out_of_bounds_are_refused_with_the_number(
    settings: PrivatePipelineConfig, wishes: PrivacyConfig, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        plan_for(settings, wishes, units=1000)
