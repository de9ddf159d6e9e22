"""The array form of the privacy loss distribution against the library's own and against numbers worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as library

from pipelines.privacy.accounting.calibration import calibrate
from pipelines.privacy.accounting.pld import read_epsilon, step_losses
from pipelines.privacy.mechanisms.base import PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism


@pytest.mark.parametrize(
    ("q", "sigma", "steps"),
    [
        (0.001, 0.31, 10), (0.001, 0.45, 10_000), (0.01, 1.0, 1), (0.0667, 1.22, 600), (0.3, 30.0, 10),
        (0.9, 5.0, 100), (0.999, 3.0, 20), (1.0, 0.8, 1), (1.0, 2.0, 4), (1.0, 50.0, 3000),
    ],
)  # fmt: skip
@pytest.mark.parametrize("interval", [1e-3, 4e-3])
def test_epsilon_is_the_librarys(q: float, sigma: float, steps: int, interval: float) -> None:
    theirs = library.from_gaussian_mechanism(sigma, sampling_prob=q, value_discretization_interval=interval)
    composed = theirs.self_compose(steps)
    for delta in (1e-5, 1e-3):
        ours = max(direction.epsilon(steps, delta) for direction in step_losses(sigma, q, interval))
        assert ours == pytest.approx(composed.get_epsilon_for_delta(delta), abs=2e-7)


def test_one_distribution_serves_every_number_of_steps_in_any_order() -> None:
    (loss,) = step_losses(2.0, 1.0, 1e-3)
    rising = [loss.epsilon(steps, 1e-5) for steps in (1, 7, 50)]
    assert rising == sorted(rising)
    assert [loss.epsilon(steps, 1e-5) for steps in (50, 7, 1)] == rising[::-1]


def test_epsilon_of_randomised_response_by_hand() -> None:
    # Losses 1 and -1 with probabilities p = e/(1+e) and 1-p: delta(eps) = p - e^(eps-1) p for eps in [-1, 1].
    p = math.e / (1 + math.e)
    probabilities = np.array([1 - p, 0.0, p])
    for delta in (1e-5, 0.1):
        assert read_epsilon(probabilities, -1, 1.0, 0.0, delta) == pytest.approx(1 + math.log((p - delta) / p))
    assert read_epsilon(probabilities, -1, 1.0, 0.2, 0.1) == math.inf
    assert read_epsilon(probabilities, -1, 1.0, 0.0, 0.9) == 0.0


def test_a_loss_beyond_floats_is_its_own_epsilon() -> None:
    # e^-800 is zero as a float.
    assert read_epsilon(np.array([0.5, 0.5]), 799, 1.0, 0.0, 1e-5) == 800.0


@pytest.mark.parametrize(("q", "steps", "target"), [(0.001, 10, 8.0), (0.0667, 600, 1.0), (1.0, 600, 0.1)])
def test_no_smaller_noise_on_the_grid_meets_the_target(q: float, steps: int, target: float) -> None:
    plan = PoissonGaussianMechanism(
        unit=PrivacyUnit.EXAMPLE, population=60_000, sampling_probability=q, steps=steps, noise_multiplier=0.0,
        clip_norm=1.0, delta=1e-5,
    )  # fmt: skip
    found = calibrate(plan, target)
    assert found.epsilon() <= target
    assert replace(found, noise_multiplier=found.noise_multiplier - 1e-4).epsilon() > target
