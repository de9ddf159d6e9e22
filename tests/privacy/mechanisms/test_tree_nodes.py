"""Noise on trees, against numbers worked out by hand."""

import numpy as np
import pytest

from pipelines.privacy.accounting.gaussian_pair import gaussian_pair_epsilon
from pipelines.privacy.mechanisms.tree import TreeMechanism
from pipelines.privacy.mechanisms.tree_nodes import increments, leaf_distance, whitened


def plan_of(steps: int, restart_every: int) -> TreeMechanism:
    return TreeMechanism(
        population=1000, clients_per_round=1, steps=steps, restart_every=restart_every, noise_multiplier=4.0,
        clip_norm=1.0, delta=1e-5,
    )  # fmt: skip


def test_a_sum_has_the_noise_of_its_subtrees() -> None:
    # A subtree of height d has 1 / (2 - 2^-d) of a node's variance: 1, 2/3, 4/7, 8/15.
    cumulative = np.cumsum(increments(8), axis=0)
    expected = [1, 2 / 3, 1 + 2 / 3, 4 / 7, 1 + 4 / 7, 2 / 3 + 4 / 7, 1 + 2 / 3 + 4 / 7, 8 / 15]
    assert (cumulative**2).sum(axis=1) == pytest.approx(expected)
    # Two rounds: the first adds leaf l, the second 2/3 of the node above, 1/3 of leaf m, and -2/3 of l.
    assert np.sort(increments(2)[1]) == pytest.approx([-2 / 3, 1 / 3, 2 / 3])


def test_distance_of_a_leaf_is_that_of_the_inverse_covariance() -> None:
    # Of two rounds the covariance is [[1, -2/3], [-2/3, 1]], whose inverse has 9/5 on its diagonal.
    assert leaf_distance(1) == pytest.approx(1)
    assert leaf_distance(2) ** 2 == pytest.approx(9 / 5)
    # Never more than all nodes above a leaf tell, and no less than a shorter tree.
    squares = [leaf_distance(rounds) ** 2 for rounds in range(1, 70)]
    nodes = [np.ceil(np.log2(rounds + 1)) for rounds in range(1, 70)]
    assert all(np.array(squares) <= np.array(nodes) + 1e-9)
    assert (np.diff(squares) > -1e-9).all()
    assert leaf_distance(5000) == leaf_distance(256)


def test_noise_of_trees_comes_out_as_independent_draws() -> None:
    rng, trees = np.random.default_rng(0), (7, 7, 3)
    draws = [increments(rounds) @ rng.normal(scale=2.0, size=(increments(rounds).shape[1], 20_000)) for rounds in trees]
    found = np.cov(whitened(np.concatenate(draws), trees))
    assert found == pytest.approx(4 * np.eye(17), abs=5 * 4 * np.sqrt(2 / 20_000))


@pytest.mark.parametrize(("steps", "restart_every"), [(10, 1), (16, 16), (100, 30), (600, 300)])
def test_bound_of_the_noise_stays_below_the_accountants_epsilon(steps: int, restart_every: int) -> None:
    plan = plan_of(steps, restart_every)
    bound = plan.lower_bound(1 / plan.noise_multiplier)
    assert 0.5 * plan.epsilon() < bound < plan.epsilon()
    assert plan.lower_bound(0.0) == plan.lower_bound(-1.0) == 0


def test_trees_of_one_round_are_gaussian_mechanisms() -> None:
    exact = gaussian_pair_epsilon((0.0, 1.0), (10**0.5 / 4, 1.0), 1e-5)
    assert plan_of(10, 1).lower_bound(0.25) == pytest.approx(exact)
