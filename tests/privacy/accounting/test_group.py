"""Group privacy as a conversion of one unit's guarantee."""

import math

import pytest
from dp_accounting.rdp import RdpAccountant

from pipelines.privacy.accounting.epsilon import rdp_epsilon
from pipelines.privacy.accounting.group import group_epsilon
from pipelines.privacy.mechanisms.base import PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism


def plan(q: float = 0.1, sigma: float = 2.2478, steps: int = 100, delta: float = 1e-5) -> PoissonGaussianMechanism:
    return PoissonGaussianMechanism(
        unit=PrivacyUnit.USER, population=1000, sampling_probability=q, steps=steps, noise_multiplier=sigma,
        clip_norm=1.0, delta=delta,
    )  # fmt: skip


def test_a_group_of_one_has_the_epsilon_of_rdp() -> None:
    assert group_epsilon(plan(), 1) == pytest.approx(rdp_epsilon(plan()), abs=1e-3)


@pytest.mark.parametrize("members", [2, 5])
def test_the_conversion_meets_the_delta_with_nothing_to_spare(members: int) -> None:
    found = group_epsilon(plan(), members)
    assert found is not None
    one, curve = found / members, RdpAccountant().compose(plan().dp_event())

    def converted(value: float) -> float:
        return float(curve.get_delta(value)) * sum(math.exp(i * value) for i in range(members))

    assert converted(one) <= 1e-5 * (1 + 1e-9)
    assert converted(one - 1e-4) > 1e-5
    # At the same delta it costs more than k times the epsilon of one.
    assert found > members * plan().epsilon()


@pytest.mark.parametrize("members", [2, 5])
def test_conversion_never_beats_the_exact_group_of_a_gaussian(members: int) -> None:
    # Everybody takes part: k users are one Gaussian mechanism with mu = k / sigma.
    single = plan(q=1.0, sigma=2.0, steps=1)
    found = group_epsilon(single, members)
    assert found is not None
    exact = plan(q=1.0, sigma=2.0 / members, steps=1).epsilon()
    assert exact < found < 3 * exact


def test_no_step_protects_fully_and_little_noise_hardly() -> None:
    assert group_epsilon(plan(steps=0), 5) == 0.0
    assert group_epsilon(plan(q=1.0, sigma=0.05, steps=1), 5) is None
