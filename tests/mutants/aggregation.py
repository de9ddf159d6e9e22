"""Bugs in what TensorFlow Federated clips, noises and divides, planted into the queries."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from pipelines.engines.federated import learning_process as process
from pipelines.engines.federated import tff_noise as noise
from pipelines.engines.federated import tree_noise as tree
from pipelines.engines.federated.engine import tf
from pipelines.engines.federated.keys import key_after, stateless_normal
from pipelines.engines.federated.tff_noise import KeyedSum
from pipelines.engines.federated.tree_noise import KeyedTreeSum

Plant = Callable[[pytest.MonkeyPatch], None]


def clipped_as(change: Callable[[Sequence[Any], Any], Sequence[Any]]) -> Plant:
    """Replaces the clip of one user's tensors, that of trees included."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        def clip(self: KeyedSum, clip_norm: Any, record: Any) -> tuple[Any, Any]:
            values = tf.nest.flatten(record)
            return tf.nest.pack_sequence_as(record, list(change(values, clip_norm))), tf.linalg.global_norm(values)

        patch.setattr(KeyedSum, "preprocess_record_impl", clip)
        patch.setattr(tree, "_clip", change)

    return plant


def _each_tensor(values: Sequence[Any], clip_norm: Any) -> Sequence[Any]:
    return tuple(tf.clip_by_norm(value, clip_norm) for value in values)


def _by(values: Sequence[Any], measured: Sequence[Any], clip_norm: Any) -> Sequence[Any]:
    scale = clip_norm / tf.maximum(tf.linalg.global_norm(measured), clip_norm)
    return tuple(value * scale for value in values)


def _without_biases(values: Sequence[Any], clip_norm: Any) -> Sequence[Any]:
    return _by(values, [value for value in values if len(value.shape) > 1], clip_norm)


def _last_layer(values: Sequence[Any], clip_norm: Any) -> Sequence[Any]:
    return _by(values, list(values)[-2:], clip_norm)


def _each_coordinate(values: Sequence[Any], clip_norm: Any) -> Sequence[Any]:
    return tuple(tf.clip_by_value(value, -clip_norm, clip_norm) for value in values)


tensors_apart, without_biases, last_layer, coordinates_apart = map(
    clipped_as, (_each_tensor, _without_biases, _last_layer, _each_coordinate)
)


def noised_as(draw: Callable[[Any, Any, int, int], tuple[Any, Any]]) -> Plant:
    """Replaces the noise of each tensor by `draw(value, key, position, tensors)`, which returns the next key too.

    The count of adaptive clipping, a sum of one scalar, keeps its own.
    """

    def plant(patch: pytest.MonkeyPatch) -> None:
        real = KeyedSum.get_noised_result

        def noised(self: KeyedSum, sample_state: Any, state: Any) -> Any:
            values = tf.nest.flatten(sample_state)
            if len(values) == 1:
                return real(self, sample_state, state)
            _, after, event = real(self, sample_state, state)
            sums, key = [], state.key
            for k, value in enumerate(values):
                drawn, key = draw(value, key, k, len(values))
                sums.append(value + state.stddev * drawn)
            return tf.nest.pack_sequence_as(sample_state, sums), after._replace(key=key), event

        patch.setattr(KeyedSum, "get_noised_result", noised)

    return plant


def _scaled(scale: Callable[[Any, int, int], float]) -> Plant:
    def draw(value: Any, key: Any, k: int, tensors: int) -> tuple[Any, Any]:
        drawn, key = stateless_normal(tf.shape(value), key)
        return scale(value, k, tensors) * drawn, key

    return noised_as(draw)


first_tensor_alone = _scaled(lambda value, k, tensors: float(k == 0))
last_tensor_alone = _scaled(lambda value, k, tensors: float(k == tensors - 1))
not_on_biases = _scaled(lambda value, k, tensors: float(len(value.shape) > 1))
half_on_convolutions = _scaled(lambda value, k, tensors: 0.5 if len(value.shape) == 4 else 1.0)


def _shared(value: Any, key: Any, k: int, tensors: int) -> tuple[Any, Any]:
    """Every tensor of a round from one key: the shorter one's noise is a part of the longer one's."""
    drawn, _ = stateless_normal(tf.shape(value), key - tf.constant([0, 2 * k], tf.int64))
    return drawn, key_after(key, tensors=1)


def _tiled(value: Any, key: Any, k: int, tensors: int) -> tuple[Any, Any]:
    drawn, key = stateless_normal(tf.shape(value), key)
    flat = tf.reshape(drawn, [-1])
    half = tf.size(flat) // 2
    return tf.reshape(tf.concat([flat[:half], flat[:half], flat[2 * half :]], 0), tf.shape(value)), key


def _where_touched(value: Any, key: Any, k: int, tensors: int) -> tuple[Any, Any]:
    drawn, key = stateless_normal(tf.shape(value), key)
    return tf.where(tf.equal(value, 0.0), tf.zeros_like(drawn), drawn), key


shared_by_tensors, tiled, touched_alone = map(noised_as, (_shared, _tiled, _where_touched))


def of_law(transform: Callable[[Any], Any]) -> Plant:
    """Turns standard normal coordinates into those of another law with the same variance, in sums and nodes."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        def drawn(shape: Any, key: Any) -> tuple[Any, Any]:
            values, after = stateless_normal(shape, key)
            return transform(values), after

        for module in (noise, tree):
            patch.setattr(module, "stateless_normal", drawn)

    return plant


uniform = of_law(lambda values: 12**0.5 * tf.math.erf(values / 2**0.5) / 2)
coin_toss = of_law(tf.sign)


def repeated_every(lag: int) -> Plant:
    """Keys go round in a circle: noise comes back after `lag` rounds."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        real = KeyedSum.get_noised_result

        def noised(self: KeyedSum, sample_state: Any, state: Any) -> Any:
            total, after, event = real(self, sample_state, state)
            turn = tf.math.floormod(state.key[0], lag)
            following = state.key[0] - turn + tf.math.floormod(turn + 1, lag)
            return total, after._replace(key=tf.stack([following, state.key[1]])), event

        patch.setattr(KeyedSum, "get_noised_result", noised)

    return plant


def known_keys(patch: pytest.MonkeyPatch) -> None:
    """The same noise in every run of the program."""
    real = process.with_fresh_keys

    def known(state: Any, stream: Any) -> Any:
        return real(state, np.random.default_rng(0))

    patch.setattr(process, "with_fresh_keys", known)


def realised_normaliser(patch: pytest.MonkeyPatch) -> None:
    """Divides by who came, and not by who was expected."""
    real = process.Server.round

    def turn(self: process.Server, cohort: Any) -> Any:
        cohort = list(cohort)
        aggregator = self._state.aggregator
        query = aggregator.query_state
        divided = query._replace(denominator=type(query.denominator)(max(1, len(cohort))))
        self._state = self._state._replace(aggregator=aggregator._replace(query_state=divided))
        return real(self, cohort)

    patch.setattr(process.Server, "round", turn)


def count_noise_times(factor: float) -> Plant:
    """Scales the noise on the count that adaptive clipping follows, and reports the whole."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        real = KeyedSum.get_noised_result

        def noised(self: KeyedSum, sample_state: Any, state: Any) -> Any:
            if len(tf.nest.flatten(sample_state)) > 1:
                return real(self, sample_state, state)
            total, after, _ = real(self, sample_state, state._replace(stddev=factor * state.stddev))
            event = real(self, sample_state, state)[2]
            return total, after._replace(stddev=state.stddev), event

        patch.setattr(KeyedSum, "get_noised_result", noised)

    return plant


def at_the_first_clip_norm(patch: pytest.MonkeyPatch) -> None:
    """Noise that does not follow the clip norm, and reports that it does."""
    real = KeyedSum.get_noised_result

    def noised(self: KeyedSum, sample_state: Any, state: Any) -> Any:
        total, after, _ = real(self, sample_state, state._replace(stddev=tf.constant(self._stddev, tf.float32)))
        return total, after._replace(stddev=state.stddev), real(self, sample_state, state)[2]

    patch.setattr(KeyedSum, "get_noised_result", noised)


def tree_with(change: Callable[..., Any]) -> Plant:
    """Replaces a tree's round by `change(right, first, sums, state)`, where `right` takes sums and state."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        real = KeyedTreeSum.get_noised_result

        def noised(self: KeyedTreeSum, sums: Any, state: Any) -> Any:
            first, _ = self._restart_indicator.next(state.indicator_state)
            return change(partial(real, self), first, sums, state)

        patch.setattr(KeyedTreeSum, "get_noised_result", noised)

    return plant


def _same_again(right: Any, first: Any, sums: Any, state: Any) -> Any:
    """Every tree from the same key."""
    inner = state.inner_query_state
    generator = inner.tree_state.value_generator_state
    start = tf.stack([generator.key[0], tf.constant(0, tf.int64)])
    generator = generator._replace(key=tf.where(first, start, generator.key))
    inner = inner._replace(tree_state=inner.tree_state._replace(value_generator_state=generator))
    return right(sums, state._replace(inner_query_state=inner))


def _bare_at_first(right: Any, first: Any, sums: Any, state: Any) -> Any:
    """A tree's first round without noise."""
    total, after, event = right(sums, state)
    parts = zip(tf.nest.flatten(sums), tf.nest.flatten(total), strict=True)
    return tf.nest.pack_sequence_as(sums, [tf.where(first, bare, noised) for bare, noised in parts]), after, event


same_trees, bare_first_rounds = map(tree_with, (_same_again, _bare_at_first))
