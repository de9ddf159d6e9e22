"""The private aggregation of `tff.learning`, with Gaussian noise from keys that each run brings.

TensorFlow derives the seed of every unseeded operation of a process from one 32-bit number, and `tensorflow_privacy`
draws its noise with such operations: with 2^32 trials an attacker could remove all noise from a released model. Here
the queries of `tensorflow_privacy` keep a key of 128 bits in their state, and draw from TensorFlow's stateless
generator alone.

TensorFlow turns a seed of 128 bits, by a bijection, into a 64-bit Philox key and the upper half of Philox's counter;
the lower half counts the blocks of one draw. Draw number i of a run has the seed key + i, so that no two draws of a run
share a (key, counter). An attacker who saw one block could run it backwards under each of 2^64 Philox keys and find the
seed. So all noise is the sum of two draws, and neither is released. Philox is a statistical generator and not a cipher:
there is no proof that its noise is indistinguishable from random.

Source: Salmon et al. 2011, doi:10.1145/2063384.2063405 (Philox); `random_ops_util.py` of TensorFlow (seeds).
"""

from collections import namedtuple
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dp_accounting
import numpy as np

from pipelines.engines.federated.engine import tf, tff, tfp
from pipelines.engines.federated.keys import key_after, stateless_normal
from pipelines.engines.federated.secure import tightened
from pipelines.engines.federated.tree_noise import KeyedTreeSum
from pipelines.privacy.mechanisms.base import AdaptiveClipping


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The part of a plan from which the process's private aggregation is built.

    Attributes:
      noise_multiplier: effective sigma of a whole round, or of a tree's node.
      clip_norm: L2 bound of one user's delta; the first one under adaptive clipping.
      expected_batch_size: public constant that the noised sum is divided by.
      adaptive: None where the clip norm is fixed.
      restart_every: rounds of a tree; None where there are none.
      coefficients: first column of C, by whose inverse independent draws become the rounds' noise.
      secure: whether the sum is that of secure aggregation; never with adaptive clipping.
    """

    noise_multiplier: float
    clip_norm: float
    expected_batch_size: float
    adaptive: AdaptiveClipping | None = None
    restart_every: int | None = None
    coefficients: tuple[float, ...] = (1.0,)
    secure: bool = False


def private_mean(noise: Noise, specs: Sequence[Any]) -> tff.aggregators.UnweightedAggregationFactory:
    """Returns the mechanism in TFF: clip, sum, add noise, divide by a constant.

    Its noise is predictable until `with_fresh_keys` has changed the initial state. It does not zero large updates: the
    threshold of `tff.learning.dp_aggregator`'s zeroing is a quantile without noise.
    """
    total = tff.aggregators.SecureSumFactory(float(noise.clip_norm)) if noise.secure else None
    return tff.aggregators.DifferentiallyPrivateFactory(private_mean_query(noise, specs), total)


def private_mean_query(noise: Noise, specs: Sequence[Any]) -> tfp.SumAggregationDPQuery:
    """Returns what `DifferentiallyPrivateFactory`'s own methods build, with keyed noise.

    Args:
      noise: fixed or adaptive clipping (`gaussian_fixed`, `gaussian_adaptive`), trees (`tree_aggregation`), or noise
        that a banded matrix correlates.
      specs: tf.TensorSpec of each tensor that a user sends.
    """
    stddev = noise.clip_norm * noise.noise_multiplier
    clip_norm = tightened(noise.clip_norm, specs) if noise.secure else noise.clip_norm
    if noise.adaptive is not None:
        query = KeyedAdaptiveSum(noise, noise.adaptive)
    elif noise.restart_every is not None:
        query = KeyedTreeSum(clip_norm=clip_norm, stddev=stddev, restart_every=noise.restart_every, specs=specs)
    elif noise.coefficients != (1.0,):
        query = KeyedBandedSum(clip_norm=clip_norm, stddev=stddev, coefficients=noise.coefficients, specs=specs)
    else:
        query = KeyedSum(clip_norm, stddev)
    return tfp.NormalizedQuery(query, denominator=float(noise.expected_batch_size))


def with_fresh_keys(state: Any, stream: np.random.Generator) -> Any:
    """Returns a query's state with a newly drawn key of 128 bits in every place for a key.

    Args:
      state: of `private_mean_query`: named tuples, nested.
      stream: the run's private stream of noise.
    """
    if not hasattr(state, "_fields"):
        return state
    return state._replace(
        **{
            name: np.frombuffer(stream.bytes(16), np.int64) if name == "key" else with_fresh_keys(value, stream)
            for name, value in state._asdict().items()
        }
    )


class KeyedSum(tfp.GaussianSumQuery):
    """Clips records and adds Gaussian noise to their sum.

    The state's `key`, int64 of shape (2,), is the seed of the next draw.
    """

    _GlobalState = namedtuple("_GlobalState", ["l2_norm_clip", "stddev", "key"])

    def make_global_state(self, l2_norm_clip: Any, stddev: Any) -> Any:
        """Puts a blank where the key belongs."""
        blank = tf.zeros([2], tf.int64)
        return self._GlobalState(tf.cast(l2_norm_clip, tf.float32), tf.cast(stddev, tf.float32), blank)

    def get_noised_result(self, sample_state: Any, global_state: Any) -> Any:
        """Returns the noised sum, the state with the key moved past all draws, and the event."""
        noised, key = [], global_state.key
        for value in tf.nest.flatten(sample_state):
            noise, key = stateless_normal(tf.shape(value), key)
            noised.append(value + tf.cast(global_state.stddev * noise, value.dtype))
        event = dp_accounting.GaussianDpEvent(global_state.stddev / global_state.l2_norm_clip)
        return tf.nest.pack_sequence_as(sample_state, noised), global_state._replace(key=key), event


class KeyedBandedSum(tfp.GaussianSumQuery):
    """Clips records and adds row t of X to the sum of round t, where C X is independent noise.

    The state's `key`, int64 of shape (2,), is the seed of the next draw; `past` holds the latest rows of X first, with
    standard normal rows of C X: float32, (bands - 1, *shape), for each tensor of a record.
    """

    _GlobalState = namedtuple("_GlobalState", ["l2_norm_clip", "stddev", "key", "past"])

    def __init__(self, *, clip_norm: float, stddev: float, coefficients: Sequence[float], specs: Sequence[Any]) -> None:
        """Builds the query.

        Args:
          clip_norm: L2 bound of a record.
          stddev: of the rows of C X.
          coefficients: of C; their number is that of its bands.
          specs: tf.TensorSpec of each tensor of a record.
        """
        super().__init__(clip_norm, stddev)
        self._coefficients = np.asarray(coefficients)
        self._specs = tuple(specs)

    def make_global_state(self, l2_norm_clip: Any, stddev: Any) -> Any:
        """Puts a blank where the key belongs, and nothing before the first round."""
        rows = len(self._coefficients) - 1
        return self._GlobalState(
            tf.cast(l2_norm_clip, tf.float32),
            tf.cast(stddev, tf.float32),
            tf.zeros([2], tf.int64),
            tuple(tf.zeros([rows, *spec.shape], tf.float32) for spec in self._specs),
        )

    def get_noised_result(self, sample_state: Any, global_state: Any) -> Any:
        """Returns the noised sum, the state of the next round, and the event of one row of C X on one unit.

        A unit reaches the rows of C X by a column of C, so that what counts is the noise over the column's length.
        """
        noised, kept, key = [], [], global_state.key
        first, *others = (tf.constant(value, tf.float32) for value in self._coefficients)
        for value, past in zip(tf.nest.flatten(sample_state), global_state.past, strict=True):
            noise, key = stateless_normal(tf.shape(value), key)
            for coefficient, row in zip(others, tf.unstack(past) if others else (), strict=True):
                noise -= coefficient * row
            noise /= first
            noised.append(value + tf.cast(global_state.stddev * noise, value.dtype))
            kept.append(tf.concat([noise[None], past], axis=0)[: len(others)])
        column = global_state.l2_norm_clip * float(np.linalg.norm(self._coefficients))
        event = dp_accounting.GaussianDpEvent(global_state.stddev / column)
        after = global_state._replace(key=key, past=tuple(kept))
        return tf.nest.pack_sequence_as(sample_state, noised), after, event


class KeyedAdaptiveSum(tfp.QuantileAdaptiveClipSumQuery):
    """A `KeyedSum` whose clip norm follows a quantile; the count behind it has noise, and a key, of its own."""

    def __init__(self, noise: Noise, adaptive: AdaptiveClipping) -> None:
        """Shares the noise between update and count as TFF does."""
        update, count = tff.aggregators.differential_privacy.adaptive_clip_noise_params(
            float(noise.noise_multiplier), float(noise.expected_batch_size), float(adaptive.count_stddev)
        )
        follow = (
            float(adaptive.target_quantile),
            float(adaptive.learning_rate),
            count,
            float(noise.expected_batch_size),
        )
        super().__init__(noise.clip_norm, update, *follow)
        self._sum_query = KeyedSum(noise.clip_norm, update * noise.clip_norm)
        self._quantile_estimator_query = _KeyedQuantile(noise.clip_norm, *follow, geometric_update=True)

    def get_noised_result(self, sample_state: Any, global_state: Any) -> Any:
        """Does the parent's work and restores the key: the parent makes a new state for the new clip norm."""
        noised, state, event = super().get_noised_result(sample_state, global_state)
        key = key_after(global_state.sum_state.key, tensors=len(tf.nest.flatten(sample_state.sum_state)))
        return noised, state._replace(sum_state=state.sum_state._replace(key=key)), event


class _KeyedQuantile(tfp.QuantileEstimatorQuery):
    def _construct_below_estimate_query(self, below_estimate_stddev: float, expected_num_records: float) -> Any:
        # Counts are centred, so each record moves them by 1/2: the parent's query, keyed.
        return tfp.NormalizedQuery(KeyedSum(0.5, below_estimate_stddev), denominator=expected_num_records)
