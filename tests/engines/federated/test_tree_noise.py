"""The noise of tree aggregation: on the query itself, and on the weights that leave the engine."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2

from pipelines.core.errors import GuaranteeError, UserError
from pipelines.engines.federated import fast
from pipelines.engines.federated.dp_fed_avg import DpFedAvg
from pipelines.engines.federated.engine import tf
from pipelines.engines.federated.keys import DRAWS
from pipelines.engines.federated.learning_process import Server
from pipelines.engines.federated.runtime import ensure_worker
from pipelines.engines.federated.tff_noise import Noise, private_mean_query, with_fresh_keys
from pipelines.engines.federated.tree_noise import KeyedTreeSum
from pipelines.engines.interface import RoundRecord, TrainingData
from pipelines.model.spec import Weights
from pipelines.privacy.mechanisms.tree import TreeMechanism
from pipelines.privacy.participation import TurnSampler
from tests.engines.federated.conftest import dp_settings, federated_data

SHAPES = ((40, 30), (30,), (30, 10), ())
SPECS = tuple(tf.TensorSpec(shape, tf.float32) for shape in SHAPES)
COORDINATES = 1531
# A node of level d is estimated from itself and its children, and theirs, with 1 / (2 - 2^-d) of a node's variance:
# 1, 2/3, 4/7, 8/15. After t rounds the noise is that of the nodes in t's binary digits.
VARIANCES = [1, 2 / 3, 1 + 2 / 3, 4 / 7, 1 + 4 / 7, 2 / 3 + 4 / 7, 1 + 2 / 3 + 4 / 7, 8 / 15]
SILENT = 1e-20  # a client learning rate at which nothing but noise reaches the weights


def tree_noise(restart_every: int, multiplier: float = 1.5) -> Noise:
    return Noise(noise_multiplier=multiplier, clip_norm=0.7, expected_batch_size=4, restart_every=restart_every)


def start(noise: Noise, seed: int = 0) -> Any:
    return with_fresh_keys(private_mean_query(noise, SPECS).initial_global_state(), np.random.default_rng(seed))


@pytest.fixture
def eager() -> Iterator[None]:
    """Spares the query, whose tensors grow with the tree, a new graph a round."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def increments(noise: Noise, state: Any, rounds: int) -> np.ndarray:
    """The results of sums over no records, round by round, in units of a node's deviation: (rounds, coordinates)."""
    query = private_mean_query(noise, SPECS)
    nothing = query.initial_sample_state([tf.zeros(shape) for shape in SHAPES])
    results = []
    for _ in range(rounds):
        result, state, _ = query.get_noised_result(nothing, state)
        results.append(np.concatenate([np.ravel(value) for value in result]))
    return np.array(results, np.float64) / (1.5 * 0.7 / 4)


def assert_variance(values: np.ndarray, expected: float) -> None:
    low, high = chi2.ppf([1e-4, 1 - 1e-4], values.size)
    assert low < (values**2).sum() / expected < high


@pytest.mark.usefixtures("eager")
def test_noise_on_the_cumulative_sum_is_that_of_nodes() -> None:
    cumulative = np.cumsum(increments(tree_noise(100), start(tree_noise(100)), rounds=8), axis=0)
    for values, expected in zip(cumulative, VARIANCES, strict=True):
        assert_variance(values, expected)
    # Rounds 4 and 5 share the node of rounds 1 to 4. The node of 1 to 8 has, in half, quarter and eighth parts, those
    # that round 7 is made of: 8/15 * (1/2 + 1/4 + 1/8).
    assert np.mean(cumulative[3] * cumulative[4]) == pytest.approx(4 / 7, abs=0.12)
    assert np.mean(cumulative[6] * cumulative[7]) == pytest.approx(7 / 15, abs=0.12)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("restart_every", [1, 2, 3])
def test_trees_restart_on_time_with_fresh_noise(restart_every: int) -> None:
    trees = increments(tree_noise(restart_every), start(tree_noise(restart_every)), rounds=3 * restart_every)
    ends = [np.cumsum(tree, axis=0) for tree in np.split(trees, 3)]
    for tree in ends:
        for values, expected in zip(tree, VARIANCES, strict=False):
            assert_variance(values, expected)
    correlations = np.corrcoef(np.array([tree[-1] for tree in ends])) - np.eye(3)
    assert np.abs(correlations).max() < 5 / np.sqrt(COORDINATES)


@pytest.mark.usefixtures("eager")
def test_all_noise_comes_from_the_runs_key() -> None:
    noise = tree_noise(2)
    blank = increments(noise, private_mean_query(noise, SPECS).initial_global_state(), rounds=3)
    first, same, other = (increments(noise, start(noise, seed), rounds=3) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    for known in (blank, other):
        correlations = np.corrcoef(first, known)[:3, 3:]
        assert np.abs(correlations).max() < 5 / np.sqrt(COORDINATES)


@pytest.mark.usefixtures("eager")
def test_no_two_draws_of_a_run_share_a_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    state, seeds, draw = start(tree_noise(3)), [], tf.random.stateless_normal

    def spy(shape: Any, seed: Any, **options: Any) -> Any:
        seeds.append(seed.numpy().tobytes())
        return draw(shape, seed, **options)

    monkeypatch.setattr(tf.random, "stateless_normal", spy)
    increments(tree_noise(3), state, rounds=6)
    # A tree of 3: a leaf to begin with, and for rounds 2, 3 and 4 a leaf, with 1, 0 and 2 nodes above: 7 in all.
    assert len(set(seeds)) == len(seeds) == 2 * 7 * len(SHAPES) * DRAWS


@pytest.mark.usefixtures("eager")
def test_a_multiplier_of_zero_leaves_the_sum_exact() -> None:
    noise = tree_noise(2, multiplier=0)
    assert not increments(noise, start(noise), rounds=5).any()


def tree_plan(**changes: Any) -> TreeMechanism:
    values: dict[str, Any] = {
        "population": 12, "clients_per_round": 4, "steps": 6, "restart_every": 3, "noise_multiplier": 0.0,
        "clip_norm": 1e3, "delta": 1e-3,
    }  # fmt: skip
    return TreeMechanism(**values | changes)


def snapshots(data: TrainingData, plan: TreeMechanism, noise_seed: int = 0, **settings: Any) -> np.ndarray:
    """All weights as one vector, before the first round and after each."""
    found = [np.concatenate([value.ravel() for value in data.initial_weights])]

    def keep(record: RoundRecord) -> None:
        found.append(np.concatenate([value.ravel() for value in record.model.weights()]))

    DpFedAvg(dp_settings(**settings), plan, noise_seed=noise_seed, threads=None).fit(data, keep)
    return np.array(found)


def rounds_of(noise: Noise, data: TrainingData, **settings: Any) -> Weights:
    ensure_worker(None)
    order, key = np.random.default_rng(0), np.random.default_rng(0)
    server = Server(dp_settings(**settings), data, noise, order=order, noise=key)
    for cohort in ([0, 1, 2], [3], [], [1, 2]):
        server.round(cohort)
    return server.weights


def test_without_noise_or_clipping_trees_change_nothing() -> None:
    data = federated_data([4, 3, 5, 2])
    plain = Noise(noise_multiplier=0, clip_norm=1e3, expected_batch_size=3)
    momentum = {"local_epochs": 2, "server_momentum": 0.9}
    mine, expected = (rounds_of(noise, data, **momentum) for noise in (replace(plain, restart_every=3), plain))
    for value, reference, begin in zip(mine, expected, data.initial_weights, strict=True):
        np.testing.assert_allclose(value, reference, atol=1e-6, rtol=0)
        assert np.abs(value - begin).max() > 1e-2


def users_of_unit_vectors(users: int) -> TrainingData:
    """User i has one example, unit vector i: only this user moves row i of the kernel."""
    data = federated_data([1] * users, features=users)
    return replace(data, inputs=np.eye(users, dtype=np.float32), labels=np.zeros(users, np.int64))


def test_cohorts_of_trees_take_turns_and_may_run_out() -> None:
    data, plan, users = users_of_unit_vectors(5), tree_plan(clip_norm=1e-3), 5
    kernels = snapshots(data, plan)[:, : users * 3].reshape(-1, users, 3)
    joined = (np.diff(kernels, axis=0) != 0).any(axis=2)
    assert joined.sum(axis=1).tolist() == [4, 1, 0, 4, 1, 0]
    assert joined[:3].sum(axis=0).tolist() == joined[3:].sum(axis=0).tolist() == [1] * users
    # A user adds clip / 4.
    moved = np.linalg.norm(np.diff(snapshots(data, plan), axis=0)[1])
    assert moved == pytest.approx(1e-3 / 4, rel=5e-3)


def test_a_schedule_that_breaks_the_restriction_ends_before_its_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TurnSampler, "draw", lambda self: np.array([0, 1]))
    rounds: list[RoundRecord] = []
    private = DpFedAvg(dp_settings(), tree_plan(clip_norm=1e-3), noise_seed=0, threads=None)
    with pytest.raises(UserError, match="round 2 contradicts its plan"):
        private.fit(users_of_unit_vectors(5), rounds.append)
    assert [record.step for record in rounds] == [1]


@pytest.mark.parametrize("secure", [False, True])
def test_nodes_with_other_noise_than_the_plans_end_the_run(secure: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tree_plan(noise_multiplier=1.5, clip_norm=0.123, steps=1)
    private = DpFedAvg(dp_settings(secure_aggregation=secure), plan, noise_seed=0, threads=None)
    private.fit(users_of_unit_vectors(5), lambda record: None)
    real = KeyedTreeSum.__init__
    half = {"stddev": 1.5 * 0.123 / 2}
    monkeypatch.setattr(KeyedTreeSum, "__init__", lambda self, **given: real(self, **{**given, **half}))
    fast.build_process.cache_clear()
    with pytest.raises(GuaranteeError, match=r"reports noise_multiplier=0\.75\d* where the plan has 1\.5"):
        private.fit(users_of_unit_vectors(5), lambda record: None)
    fast.build_process.cache_clear()


def test_noise_on_weights_is_the_trees_even_without_users() -> None:
    data = federated_data([2] * 5, features=150, classes=10)
    data = replace(data, initial_weights=[np.zeros_like(value) for value in data.initial_weights])
    plan = tree_plan(noise_multiplier=1.5, clip_norm=0.7)
    found = snapshots(data, plan, client_learning_rate=SILENT) / (1.5 * 0.7 / 4)
    for first in (0, 3):
        for rounds in (1, 2, 3):
            assert_variance(found[first + rounds] - found[first], VARIANCES[rounds - 1])
    trees = np.corrcoef(found[3] - found[0], found[6] - found[3])[0, 1]
    assert abs(trees) < 5 / np.sqrt(found.shape[1])


def test_noise_seed_fixes_cohorts_and_noise_in_both_engines() -> None:
    data, plan = federated_data([2, 3, 4] * 4), tree_plan(noise_multiplier=1.0, clip_norm=0.05)
    first, same, other = (snapshots(data, plan, noise_seed=seed) for seed in (7, 7, 8))
    np.testing.assert_allclose(first, same, atol=1e-6, rtol=0)
    assert not np.allclose(first, other)
    stock = snapshots(data, plan, noise_seed=7, engine="stock")
    np.testing.assert_allclose(first, stock, atol=1e-5, rtol=0)
