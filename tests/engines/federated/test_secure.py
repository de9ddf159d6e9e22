"""The sums of secure aggregation against plain ones, point by point, and what rounding may do to a guarantee."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipelines.core.errors import UserError
from pipelines.engines.federated.dp_fed_avg import DpFedAvg, noise_of
from pipelines.engines.federated.engine import tf
from pipelines.engines.federated.fed_avg import FedAvg
from pipelines.engines.federated.learning_process import Server
from pipelines.engines.federated.secure import FLOAT_SLACK, POINTS, SumBounds, tightened
from pipelines.engines.interface import TrainingData
from pipelines.privacy.mechanisms.base import Mechanism
from pipelines.privacy.mechanisms.tree import TreeMechanism
from tests.engines.federated.conftest import dp_settings, fed_avg_settings, federated_data, ignore, user_plan

ROUNDING = 4 * 2.0**-24  # of float32, at weights of up to 4
TREE = TreeMechanism(
    population=20, clients_per_round=6, steps=3, restart_every=2, noise_multiplier=0.5, clip_norm=0.3, delta=1e-3
)


def flat(weights: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([value.ravel() for value in weights]).astype(np.float64)


def plain(data: TrainingData, **changes: Any) -> np.ndarray:
    fit = FedAvg(fed_avg_settings(**changes), seed=0, threads=None).fit(data, ignore)
    return flat(fit.record.model.weights())


def private(data: TrainingData, plan: Mechanism, **changes: Any) -> np.ndarray:
    fit = DpFedAvg(dp_settings(**changes), plan, noise_seed=3, threads=None).fit(data, ignore)
    return flat(fit.record.model.weights())


def test_secure_fed_avg_equals_plain_within_half_a_point() -> None:
    sizes = [3, 9, 5]
    data = federated_data(sizes)
    clear, secure = (plain(data, secure_aggregation=on) for on in (False, True))
    # Bound 10 on a weight's change, and clients that weigh up to 15, 9 rounded up. Half a point is bound / (2^32 - 1).
    half_a_point = 10 * 15 / POINTS
    np.testing.assert_allclose(secure, clear, atol=3 * half_a_point / sum(sizes) + ROUNDING, rtol=0)
    assert np.abs(clear - flat(data.initial_weights)).max() > 1e-2


def test_sums_are_whole_numbers_of_points() -> None:
    # Points are 2 * 2^13 / (2^32 - 1) apart, 3.8e-6: wide enough to see in the weights, which start at zero.
    data = federated_data([4, 4, 4])
    data = replace(data, initial_weights=[np.zeros_like(value) for value in data.initial_weights])
    distance = 2 * 2.0**13 / POINTS
    clear, secure = (
        3 * plain(data, weighting="uniform", secure_aggregation=on, secure_bound=2.0**13) / distance
        for on in (False, True)
    )

    def from_whole(values: np.ndarray) -> float:
        return float(np.abs(values - np.round(values)).max())

    assert from_whole(secure) < 0.02 < from_whole(clear)
    assert 0 < np.abs(secure - clear).max() <= 3 / 2 + 0.02


def test_a_change_beyond_the_bound_ends_the_run() -> None:
    data = federated_data([4, 4, 4])
    with pytest.raises(UserError, match=r"pipeline.secure_bound=0.001 is too small for round 1: at least [123] of 3"):
        plain(data, secure_aggregation=True, secure_bound=1e-3)


POISSON = user_plan(steps=3, noise_multiplier=0.5, clip_norm=0.3, sampling_probability=0.7)


@pytest.mark.parametrize(("plan", "engine"), [(POISSON, "stock"), (TREE, "fast")])
def test_private_rounds_are_the_plain_ones_with_the_same_noise(plan: Mechanism, engine: str) -> None:
    data = federated_data([2] * 10)  # cohorts vary; the fast engine pads some with clients who hold nothing
    settings = {"engine": engine, "client_learning_rate": 2.0}
    clear, secure = (private(data, plan, secure_aggregation=on, **settings) for on in (False, True))
    # A clipped delta is shorter by what `tightened` takes, and each coordinate moves by half a point: for ten users at
    # most, over three rounds, divided by the expected batch size. What that changes in later deltas is of the same
    # order.
    moved = 0.3 * (1 - tightened(0.3, SPECS) / 0.3) + 0.3 / POINTS
    np.testing.assert_allclose(secure, clear, atol=10 * 3 * moved / plan.expected_batch_size + 3 * ROUNDING, rtol=0)
    assert (secure != clear).any()


SPECS = tuple(tf.TensorSpec(shape, tf.float32) for shape in ((5, 3), (3,)))


def test_rounding_keeps_users_within_the_clip_and_above_zero() -> None:
    data = federated_data([9])
    data = replace(data, initial_weights=[np.zeros_like(value) for value in data.initial_weights])
    plan, settings = user_plan(population=4, clip_norm=0.3, delta=0.01), {"client_learning_rate": 5.0}
    norm = np.linalg.norm(4 * private(data, plan, secure_aggregation=True, **settings))
    assert 0.3 * (1 - 3 * FLOAT_SLACK) < norm <= 0.3
    order, noise = np.random.default_rng(0), np.random.default_rng(0)
    server = Server(dp_settings(**settings), data, noise_of(plan, secure=True), order=order, noise=noise)
    server.round([])
    assert not flat(server.weights).any()


def test_the_clip_is_tighter_by_what_rounding_may_add() -> None:
    # 1,000,000 coordinates, each rounded by at most clip / (2^32 - 1): together 1000 times that.
    specs = [tf.TensorSpec((1000, 999), tf.float32), tf.TensorSpec((1000,), tf.float32)]
    assert tightened(2.0, specs) + 1000 * 2.0 / POINTS == pytest.approx(2.0 * (1 - FLOAT_SLACK), rel=1e-12)


def test_bounds_cover_every_client_and_are_shared_by_like_partitions() -> None:
    assert [SumBounds.of(1.0, largest).weight for largest in (1, 2, 9, 15, 16)] == [1, 3, 15, 15, 31]
