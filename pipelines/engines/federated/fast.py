"""Federated averaging in TFF whose clients read their examples from mapped memory, by index.

`tff.learning` requires a `tf.data` pipeline for each client. On a CPU that pipeline costs several times as much as the
training. Here a client receives the indices of its examples, and one graph takes all its local steps. Broadcast, map,
aggregation with or without privacy, and the server's step are TFF's own. The result is that of `tff.learning`, up to
rounding.
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache, partial
from math import prod
from typing import Any

import numpy as np

from pipelines.engines.federated.algorithm import AlgorithmSpec, LocalWork
from pipelines.engines.federated.engine import tf, tff
from pipelines.engines.federated.optimizer import build_optimizer
from pipelines.engines.federated.secure import SecureWeightedSum
from pipelines.engines.federated.shared_array import SharedArray
from pipelines.engines.federated.tff_model import forward, mean_cross_entropy
from pipelines.engines.federated.tff_noise import Noise, private_mean
from pipelines.model.spec import ModelSpec
from pipelines.privacy.clipping import PRIVATE_REACH

_Weights = tff.learning.models.ModelWeights
_State = tff.learning.templates.LearningAlgorithmState
_ORDER = tff.TensorType(np.int32, [None])


@lru_cache(maxsize=16)
def build_process(
    algorithm: AlgorithmSpec,
    work: LocalWork,
    inputs: SharedArray,
    labels: SharedArray,
    canaries: SharedArray | None = None,
) -> tff.templates.IterativeProcess:
    """Builds the process once for each algorithm and data, so that a sweep over seeds traces it once.

    Args:
      algorithm: the algorithm.
      work: what one client does in one round.
      inputs: float32, shape (n, *features).
      labels: int32, shape (n,).
      canaries: float32, shape (canaries, weights): what an audit's clients send; None without an audit.

    Returns:
      A process whose `next` takes the server's state and, for each client, the indices of its examples: int32, shape
      (examples,), values in [0, n), in the order of this round. A client whose indices are all -1 - k is canary k.
    """
    weights_type = tff.types.to_type(_Weights(tuple(_tensor_types(algorithm.spec)), ()))
    finalizer = tff.learning.templates.build_apply_optimizer_finalizer(
        build_optimizer(algorithm.server.name, algorithm.server.learning_rate, algorithm.server.momentum, "server"),
        weights_type,
    )
    client = tff.tensorflow.computation(
        partial(_client_update, algorithm, work, inputs, labels, canaries), (weights_type.trainable, _ORDER)
    )
    sent = client.type_signature.result
    if private := isinstance(algorithm.average, Noise):
        aggregator = private_mean(algorithm.average, algorithm.specs).create(sent)
    else:
        sums = SecureWeightedSum(algorithm.bounds) if algorithm.bounds else tff.aggregators.SumFactory()
        aggregator, mean = sums.create(sent), tff.tensorflow.computation(_mean, sent)

    @tff.federated_computation
    def initialize() -> Any:
        nothing = tff.federated_value((), tff.SERVER)
        weights = tff.federated_eval(_zero_weights(algorithm.spec), tff.SERVER)
        return tff.federated_zip(_State(weights, nothing, nothing, aggregator.initialize(), finalizer.initialize()))

    @tff.federated_computation(initialize.type_signature.result, tff.FederatedType(_ORDER, tff.CLIENTS))
    def next_round(state: Any, orders: Any) -> Any:
        start = tff.federated_broadcast(state.global_model_weights).trainable
        update = tff.federated_map(client, (start, orders))
        total = aggregator.next(state.aggregator, update)
        average = total.result if private else tff.federated_map(mean, total.result)
        final = finalizer.next(state.finalizer, state.global_model_weights, average)
        metrics = OrderedDict(aggregator=total.measurements, finalizer=final.measurements)
        if not private:
            finite = OrderedDict(finite_clients=total.result.finite)
            metrics["client_work"] = tff.federated_zip(OrderedDict(train=tff.federated_zip(finite)))
        after = _State(final.result, state.distributor, state.client_work, total.state, final.state)
        return tff.learning.templates.LearningProcessOutput(tff.federated_zip(after), tff.federated_zip(metrics))

    return tff.templates.IterativeProcess(initialize, next_round)


def _tensor_types(spec: ModelSpec) -> list[tff.TensorType]:
    return [tff.TensorType(np.float32, shape) for shape in spec.weight_shapes()]


def _zero_weights(spec: ModelSpec) -> Any:
    @tff.tensorflow.computation
    def zeros() -> Any:
        return _Weights(tuple(tf.zeros(shape) for shape in spec.weight_shapes()), ())

    return zeros


@tf.autograph.experimental.do_not_convert
def _client_update(
    algorithm: AlgorithmSpec,
    work: LocalWork,
    inputs: SharedArray,
    labels: SharedArray,
    canaries: SharedArray | None,
    start: Any,
    order: Any,
) -> tuple[Any, ...] | OrderedDict[str, Any]:
    """Returns what a client sends: its delta, or zero if it is not finite; without privacy, weighted and with weight.

    One sum over all of it takes half the time of `tff.aggregators.MeanFactory`, which needs two sums and a product.
    """
    train = partial(_local_change, algorithm, work, tuple(start), order, inputs.tensor(), labels.tensor())
    if canaries is None:
        delta = train()
    else:
        delta = tf.cond(tf.reduce_any(order < 0), partial(_given_change, algorithm, canaries.tensor(), order), train)
    private = isinstance(algorithm.average, Noise)
    if private:
        delta = [tf.clip_by_value(value, -PRIVATE_REACH, PRIVATE_REACH) for value in delta]
    finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(value)) for value in delta])
    if private:  # nothing else leaves the clients
        return tuple(tf.where(finite, value, tf.zeros_like(value)) for value in delta)
    weight = tf.cast(tf.size(order), tf.float32) if algorithm.average == "examples" else tf.constant(1.0)
    return OrderedDict(
        delta=tuple(tf.where(finite, value * weight, tf.zeros_like(value)) for value in delta),
        weight=tf.where(finite, weight, 0.0),
        finite=tf.cast(finite, tf.float32),
    )


@tf.autograph.experimental.do_not_convert
def _local_change(algorithm: AlgorithmSpec, work: LocalWork, start: Any, *examples: Any) -> list[Any]:
    weights = train_locally(algorithm, work, start, *examples)
    return [before - after for before, after in zip(start, weights, strict=True)]


@tf.autograph.experimental.do_not_convert
def _given_change(algorithm: AlgorithmSpec, updates: Any, order: Any) -> list[Any]:
    shapes = algorithm.spec.weight_shapes()
    parts = tf.split(updates[-1 - order[0]], [prod(shape) for shape in shapes])
    return [tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]


@tf.autograph.experimental.do_not_convert
def _mean(total: Any) -> Any:
    """Divides the sum of the deltas by that of the weights. Without a finite client it is NaN: TFF rejects it."""
    return tuple(value / total["weight"] for value in total["delta"])


@tf.autograph.experimental.do_not_convert
def train_locally(
    algorithm: AlgorithmSpec, work: LocalWork, start: Sequence[Any], order: Any, inputs: Any, labels: Any
) -> Sequence[Any]:
    """Takes a client's local steps.

    Args:
      algorithm: gives the model, the client optimizer and the proximal strength.
      work: batches and epochs.
      start: the server's weights.
      order: int32 tensor, shape (examples,): indices into `inputs`.
      inputs: float32 tensor, shape (n, *features).
      labels: int32 tensor, shape (n,).

    Returns:
      The weights after `work.epochs` passes over `order` in batches.
    """
    optimizer = build_optimizer(
        algorithm.client.name, algorithm.client.learning_rate, algorithm.client.momentum, "client"
    )
    batches = (tf.size(order) + work.batch_size - 1) // work.batch_size
    steps = batches * work.epochs

    def step(k: Any, state: Any, weights: Any) -> Any:
        first = k % batches * work.batch_size
        batch = order[first : first + work.batch_size]
        with tf.GradientTape() as tape:
            tape.watch(weights)
            logits = forward(algorithm.spec, weights, tf.gather(inputs, batch))
            loss = mean_cross_entropy(logits, tf.gather(labels, batch))
        gradients = tape.gradient(loss, weights)
        if algorithm.proximal_strength > 0:  # Li et al. 2020, arXiv:1812.06127, algorithm 2
            mu = algorithm.proximal_strength
            gradients = [g + mu * (now - then) for g, now, then in zip(gradients, weights, start, strict=True)]
        return optimizer.next(state, weights, tuple(gradients))

    def unrolled(k: Any, state: Any, weights: Any) -> Any:
        for ahead in range(work.unrolled):
            values = (k + ahead, state, weights)
            state, weights = tf.cond(values[0] < steps, partial(step, *values), partial(tuple, values[1:]))
        return k + work.unrolled, state, weights

    state = optimizer.initialize(tuple(tf.TensorSpec(value.shape, value.dtype) for value in start))
    values = unrolled(tf.constant(0), state, tuple(start))
    if work.loops:
        values = tf.while_loop(lambda k, *_: k < steps, unrolled, values, parallel_iterations=1)
    return values[2]
