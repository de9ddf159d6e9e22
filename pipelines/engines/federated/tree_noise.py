"""Noise on a tree over the rounds (DP-FTRL): the query of `tff.learning`, with keyed noise and restarts on time.

A round releases the sum of its clipped records, plus the noise of the cumulative sum up to it, minus the noise of the
cumulative sum before. A server's SGD adds these up, so each cumulative sum has the noise of a few nodes.

Source: Kairouz et al. 2021, arXiv:2103.00039, algorithm 1; Honaker 2015 for the nodes' weights.
"""

from collections import namedtuple
from collections.abc import Sequence
from typing import Any

import dp_accounting

from pipelines.engines.federated.engine import tf, tfp
from pipelines.engines.federated.keys import stateless_normal


class KeyedTreeSum(tfp.RestartQuery):
    """Clips records, and adds the increment of the cumulative sum's noise to their sum.

    `tfp.RestartQuery` starts a new tree after the last round of the old one. It starts the first tree with the initial
    state, before the run's key is there. Here the first round of each tree starts it, from the key of the state.
    """

    def __init__(self, *, clip_norm: float, stddev: float, restart_every: int, specs: Sequence[Any]) -> None:
        """Builds the query.

        Args:
          clip_norm: L2 bound of a record.
          stddev: of the noise on each node.
          restart_every: rounds of a tree, >= 1.
          specs: tf.TensorSpec of each tensor of a record.
        """
        residual = tfp.TreeResidualSumQuery(
            record_specs=tuple(specs),
            noise_generator=_KeyedNormal(stddev, specs),
            clip_fn=_clip,
            clip_value=clip_norm,
        )
        # True in the rounds 1, 1 + restart_every, 1 + 2 * restart_every, ...; it counts empty rounds too.
        first = tfp.restart_query.PeriodicRoundRestartIndicator(restart_every, warmup=1 if restart_every > 1 else None)
        super().__init__(residual, first)

    def get_noised_result(self, sample_state: Any, global_state: Any) -> Any:
        """Returns the sum with its noise, the state of the next round, and an event without information."""
        first, rounds = self._restart_indicator.next(global_state.indicator_state)
        old = global_state.inner_query_state
        state = tf.cond(first, lambda: self._inner_query.reset_state(None, old), lambda: old)
        total = tuple(tf.nest.flatten(sample_state))
        noised, state, event = self._inner_query.get_noised_result(total, state)
        return tf.nest.pack_sequence_as(sample_state, noised), self._GlobalState(state, rounds), event


def node_event(state: Any) -> Any:
    """Returns the noise on one node, from the state of a `KeyedTreeSum`, as a `dp_accounting.DpEvent`."""
    tree = state.inner_query_state
    return dp_accounting.GaussianDpEvent(float(tree.tree_state.value_generator_state.stddev) / float(tree.clip_value))


class _KeyedNormal(tfp.tree_aggregation.ValueGenerator):
    """Draws the noise of one node after the other."""

    _State = namedtuple("_State", ["key", "stddev"])

    def __init__(self, stddev: float, specs: Sequence[Any]) -> None:
        self._stddev = stddev
        self._specs = specs

    def initialize(self) -> Any:
        """Puts a blank where the key belongs."""
        return self._State(tf.zeros([2], tf.int64), tf.constant(self._stddev, tf.float32))

    def next(self, state: Any) -> Any:
        """Returns a node's noise and the state with the key moved past its draws."""
        noise, key = [], state.key
        for spec in self._specs:
            values, key = stateless_normal(spec.shape, key)
            noise.append(state.stddev * values)
        return tuple(noise), state._replace(key=key)


def _clip(record: Sequence[Any], clip_norm: Any) -> Sequence[Any]:
    clipped: Sequence[Any] = tf.clip_by_global_norm(record, clip_norm)[0]
    return clipped
