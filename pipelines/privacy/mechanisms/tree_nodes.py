"""Noise on a tree over rounds: how each round's release is made of nodes, and how much it reveals about one leaf.

Source: Kairouz et al. 2021, arXiv:2103.00039, algorithm 1 and appendix B; Honaker 2015 for the nodes' weights.
"""

from functools import lru_cache

import numpy as np

from pipelines.privacy.mechanisms.base import Floats

DEEPEST = 256
"""Largest number of rounds of a tree that the bound uses. The first rounds of a longer tree form a tree of their own,
so a lower bound for them also holds for the longer tree."""


def increments(rounds: int) -> Floats:
    """Weight of each node's noise in what each round of a tree adds, (rounds, nodes).

    The rounds so far consist of complete subtrees. The noise on their sum is the noise of these subtrees. A subtree's
    sum is estimated twice: by its own node, and by the sum of its children's estimates. Both estimates are weighted by
    their precision: 1 for the node, and 1 / (2 v) for children of variance v.
    """
    nodes, subtrees = 2 * rounds, []  # of the rounds so far: (height, weights of the nodes)
    cumulative, used = [np.zeros(nodes)], 0
    for _ in range(rounds):
        subtrees.append((0, np.eye(nodes)[used]))
        used += 1
        while len(subtrees) > 1 and subtrees[-1][0] == subtrees[-2][0]:
            (height, right), (_, left) = subtrees.pop(), subtrees.pop()
            children = left + right
            share = children @ children / (1 + children @ children)
            subtrees.append((height + 1, share * np.eye(nodes)[used] + (1 - share) * children))
            used += 1
        cumulative.append(np.sum([weights for _, weights in subtrees], axis=0))
    return np.diff(np.array(cumulative), axis=0)[:, :used]


@lru_cache(maxsize=16)
def _root(rounds: int) -> Floats:
    """Lower triangular root of the covariance of the rounds' noise, (rounds, rounds), for nodes of variance 1."""
    made = increments(rounds)
    return np.asarray(np.linalg.cholesky(made @ made.T))


def whitened(noise: Floats, trees: tuple[int, ...]) -> Floats:
    """Turns the noise of the rounds, (rounds, coordinates), into as many independent draws of a node's size."""
    from scipy.linalg import solve_triangular

    parts = np.split(noise, np.cumsum(trees)[:-1])
    return np.concatenate([solve_triangular(_root(len(part)), part, lower=True) for part in parts])


@lru_cache(maxsize=64)
def leaf_distance(rounds: int) -> float:
    """How far a contribution of 1 to the worst round moves a tree's releases, in standard deviations of a node."""
    from scipy.linalg import solve_triangular

    columns = solve_triangular(_root(min(rounds, DEEPEST)), np.eye(min(rounds, DEEPEST)), lower=True)
    return float(np.linalg.norm(columns, axis=0).max())
