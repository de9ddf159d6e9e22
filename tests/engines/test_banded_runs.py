"""Runs of a banded factorisation: both engines follow one plan, and one band is plain noise."""

from typing import Any

import numpy as np
import pytest

from pipelines.engines.central.dp_sgd import DpSgd
from pipelines.engines.central.training import Hardware
from pipelines.engines.interface import RoundRecord
from pipelines.model.spec import Weights
from pipelines.privacy.mechanisms.banded import BandedMechanism
from pipelines.privacy.mechanisms.banded_noise import optimal_coefficients
from pipelines.privacy.mechanisms.base import PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism

from .central.conftest import MakeData, make_data, plain_dp_sgd
from .test_parity import close
from .test_parity import make_data as make_users
from .test_user_parity import ROUNDS, SIZES, central, federated

__all__ = ["make_data"]


def plans(bands: int, **changes: Any) -> tuple[BandedMechanism, PoissonGaussianMechanism]:
    """A banded plan and a plain one, alike but for bands."""
    values: dict[str, Any] = {
        "unit": PrivacyUnit.USER, "population": 12, "sampling_probability": 0.6, "steps": ROUNDS,
        "noise_multiplier": 0.0, "clip_norm": 0.2, "delta": 1e-3,
    }  # fmt: skip
    values |= changes
    coefficients = optimal_coefficients(bands, values["steps"])
    return BandedMechanism(**values, coefficients=coefficients), PoissonGaussianMechanism(**values)


def flat(weights: Weights) -> np.ndarray:
    return np.concatenate([value.ravel() for value in weights]).astype(np.float64)


def test_without_noise_both_engines_sample_the_same_groups() -> None:
    data, (plan, _) = make_users("mlp", (4, 4, 1), SIZES), plans(3)
    (ours, fit), (theirs, other) = central(data, plan), federated(data, plan)
    assert all(close(a, b) for a, b in zip(ours, theirs, strict=True))
    assert fit.executed == other.executed == plan
    for each in (fit, other):
        assert each.sampler is not None
        assert each.sampler.law == "cyclic poisson"


def test_one_band_over_users_is_plain_noise() -> None:
    data, both = make_users("mlp", (4, 4, 1), SIZES), plans(1, noise_multiplier=1.1)
    ours, theirs = (central(data, plan)[0] for plan in both)
    assert all(np.array_equal(flat(a), flat(b)) for a, b in zip(ours, theirs, strict=True))
    ours, theirs = (federated(data, plan)[0] for plan in both)
    assert all(close(a, b) for a, b in zip(ours, theirs, strict=True))


def steps_of(data: Any, plan: Any, **settings: object) -> list[np.ndarray]:
    records: list[RoundRecord] = []
    found: list[np.ndarray] = []

    def keep(record: RoundRecord) -> None:
        records.append(record)
        found.append(flat(record.model.weights()))

    DpSgd(plain_dp_sgd(**settings), plan, noise_seed=5, hardware=Hardware(device="cpu", threads=1)).fit(data, keep)
    return found


@pytest.mark.parametrize("mode", ["book_keeping", "hooks", "ghost"])
def test_one_band_over_examples_is_plain_noise(make_data: MakeData, mode: str) -> None:
    both = plans(1, unit=PrivacyUnit.EXAMPLE, population=40, noise_multiplier=0.9, sampling_probability=0.3)
    ours, theirs = (steps_of(make_data(), plan, grad_sample=mode, momentum=0.5) for plan in both)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("mode", ["book_keeping", "hooks", "ghost"])
def test_noise_on_the_weights_is_correlated_by_the_plan(make_data: MakeData, mode: str) -> None:
    """The same draws, once plain and once through C^-1, on sums that a tiny clip norm keeps at nothing."""
    same = {"unit": PrivacyUnit.EXAMPLE, "population": 40, "sampling_probability": 1e-9, "clip_norm": 1e-3}
    banded, plain = plans(4, noise_multiplier=2.0, steps=30, **same)
    moved = []
    for plan in (banded, plain):
        data = make_data()
        path = np.array([flat(data.initial_weights), *steps_of(data, plan, grad_sample=mode)])
        moved.append(-np.diff(path, axis=0) * plan.expected_batch_size / (2.0 * plan.clip_norm))
    draws = banded.whitened(moved[0])
    assert np.std(draws) == pytest.approx(1, rel=0.1)
    assert not np.allclose(moved[0], draws, rtol=0.1)
    # Groups are dealt from another stream than noise, so that both runs draw the same.
    np.testing.assert_allclose(draws, moved[1], rtol=1e-3, atol=1e-3)
