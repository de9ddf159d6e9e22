"""Noise of a banded matrix factorisation in TFF: a round's noise takes part of the former rounds' off again.

The state of the aggregation holds the key, and the noise of the last rounds: what X is made of in
`pipelines.privacy.mechanisms.banded`. It is float32, as all noise here; errors of rounding do not add up, since the
recursion forgets.
"""

from collections import namedtuple
from collections.abc import Sequence
from typing import Any

import dp_accounting
import numpy as np

from pipelines.engines.federated.engine import tf, tfp
from pipelines.engines.federated.keys import stateless_normal


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
