"""A tiny delta of many steps: what the accountant's transforms round away must never make epsilon too low."""

from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.core.errors import UserError
from pipelines.privacy.accounting.epsilon import composed_epsilon, sure_delta
from pipelines.privacy.mechanisms.base import PrivacyUnit, least_delta
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism
from tests.privacy.exact import composed_delta, gaussian_delta


def plan(q: float, sigma: float, steps: int, delta: float) -> PoissonGaussianMechanism:
    return PoissonGaussianMechanism(
        unit=PrivacyUnit.EXAMPLE, population=1000, clip_norm=1.0, sampling_probability=q, noise_multiplier=sigma,
        steps=steps, delta=delta,
    )  # fmt: skip


@settings(max_examples=12, deadline=None)
@given(log_steps=st.floats(0, 5.3), mu=st.floats(0.2, 4.0), log_delta=st.floats(-10, -5))
def test_epsilon_of_full_steps_is_not_below_the_closed_form(log_steps: float, mu: float, log_delta: float) -> None:
    steps, delta = int(10**log_steps), 10**log_delta
    claimed = plan(1.0, sqrt(steps) / mu, steps, delta).epsilon()
    # Half of delta is what rounding may take at most, and the grid adds a little.
    assert 0.45 * delta < gaussian_delta(claimed, mu) <= delta


@pytest.mark.parametrize(
    ("q", "sigma", "steps", "delta"),
    [
        (0.01, 4.0, 100_000, 1e-10), (0.264, 23.66, 200_000, 1e-10), (0.001, 1.0, 100_000, 1e-10),
        (256 / 60_000, 1.1, 14_063, 1e-5),
    ],
)  # fmt: skip
def test_epsilon_of_poisson_samples_is_not_below_the_exact_one(
    q: float, sigma: float, steps: int, delta: float
) -> None:
    sampled = plan(q, sigma, steps, delta)
    for claimed in (
        sampled.epsilon(),
        sampled.quick_epsilon(),
        composed_epsilon([sampled.executed(steps - 9).composition, sampled.composition], delta),
    ):
        assert composed_delta(claimed, q=q, sigma=sigma, steps=steps) <= delta
    assert composed_delta(sampled.epsilon(), q=q, sigma=sigma, steps=steps) > 0.45 * delta


def test_the_two_exact_values_agree() -> None:
    assert composed_delta(2.0, q=1.0, sigma=30.0, steps=1000) == pytest.approx(
        gaussian_delta(2.0, sqrt(1000) / 30), rel=1e-9
    )


def test_a_delta_below_rounding_is_refused_with_a_usable_one() -> None:
    with pytest.raises(UserError, match=r"privacy\.delta=1e-10 .* 300,000 steps; choose 1\.4e-10 or more"):
        plan(0.01, 4.0, 300_000, 1e-10)
    assert plan(0.01, 4.0, 300_000, 1.4e-10).delta > least_delta(300_000)


@pytest.mark.parametrize(("delta", "steps"), [(1e-5, 14_063), (1e-5, 40_000), (1e-3, 1_000_000)])
def test_an_ordinary_delta_is_left_as_it_is(delta: float, steps: int) -> None:
    assert sure_delta(delta, steps) == delta
