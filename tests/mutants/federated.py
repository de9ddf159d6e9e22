"""Bugs in the TensorFlow Federated engine."""

from typing import Any

import numpy as np
import pytest

from pipelines.engines.federated import fast, keys, stock
from pipelines.engines.federated import tff_noise as noise
from pipelines.engines.federated import tree_noise as tree
from pipelines.engines.federated.engine import tf, tff
from pipelines.engines.federated.tff_noise import KeyedSum
from pipelines.privacy.participation import TurnSampler


def _half_normal(shape: Any, key: Any) -> tuple[Any, Any]:
    values, after = keys.stateless_normal(shape, key)
    return values / 2, after


def half_noise(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(noise, "stateless_normal", _half_normal)


def half_node_noise(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tree, "stateless_normal", _half_normal)


def half_stddev(patch: pytest.MonkeyPatch) -> None:
    real = KeyedSum.make_global_state
    patch.setattr(KeyedSum, "make_global_state", lambda self, clip, stddev: real(self, clip, stddev / 2))


def frozen_key(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(keys, "key_after", lambda key, *, tensors: key)


def no_clipping(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(KeyedSum, "preprocess_record_impl", lambda self, params, record: (record, tf.constant(0.0)))


def clipped_after_summing(patch: pytest.MonkeyPatch) -> None:
    real = KeyedSum.get_noised_result

    def clip_the_sum(self: KeyedSum, sample_state: Any, global_state: Any) -> Any:
        values, _ = tf.clip_by_global_norm(tf.nest.flatten(sample_state), 100 * global_state.l2_norm_clip)
        return real(self, tf.nest.pack_sequence_as(sample_state, values), global_state)

    no_clipping(patch)
    patch.setattr(KeyedSum, "get_noised_result", clip_the_sum)


def repeated_turns(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TurnSampler, "draw", lambda self: np.arange(self._size))


def zeroing(patch: pytest.MonkeyPatch) -> None:
    real = noise.private_mean

    def zeroed(*arguments: Any) -> Any:
        norm = tff.aggregators.PrivateQuantileEstimationProcess.no_noise(
            initial_estimate=10.0, target_quantile=0.98, learning_rate=1.0
        )
        return tff.aggregators.zeroing_factory(norm, real(*arguments))

    for module in (fast, stock):
        patch.setattr(module, "private_mean", zeroed)
