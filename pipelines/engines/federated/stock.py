"""The stock `tff.learning` process of an algorithm: the reference that the fast engine is compared with."""

from collections import OrderedDict
from functools import lru_cache
from typing import Any

import numpy as np

from pipelines.engines.federated.algorithm import AlgorithmSpec
from pipelines.engines.federated.engine import tf, tff
from pipelines.engines.federated.optimizer import anchored, build_optimizer
from pipelines.engines.federated.tff_model import forward, mean_cross_entropy
from pipelines.engines.federated.tff_noise import Noise, private_mean
from pipelines.model.spec import ModelSpec
from pipelines.privacy.clipping import PRIVATE_REACH


@lru_cache(maxsize=16)
def build_process(algorithm: AlgorithmSpec) -> tff.learning.templates.LearningProcess:
    """Builds the process once for each algorithm, so that a sweep over seeds traces it once."""
    private = isinstance(algorithm.average, Noise)
    client = build_optimizer(algorithm.client.name, algorithm.client.learning_rate, algorithm.client.momentum, "client")
    reach = PRIVATE_REACH if private else None
    if private or algorithm.proximal_strength > 0:
        client = anchored(client, proximal_strength=algorithm.proximal_strength, reach=reach)
    common = {
        "client_optimizer_fn": client,
        "server_optimizer_fn": build_optimizer(
            algorithm.server.name, algorithm.server.learning_rate, algorithm.server.momentum, "server"
        ),
        # The other loop compiles a reduction for each dataset: three times the cost with few batches per client.
        "loop_implementation": tff.learning.LoopImplementation.DATASET_ITERATOR,
    }
    if isinstance(algorithm.average, Noise):
        return tff.learning.algorithms.build_unweighted_fed_avg(
            _functional_model(algorithm.spec),
            model_aggregator=private_mean(algorithm.average, algorithm.specs),
            metrics_aggregator=_aggregate_nothing,
            **common,
        )
    weighting = {
        "examples": tff.learning.ClientWeighting.NUM_EXAMPLES,
        "uniform": tff.learning.ClientWeighting.UNIFORM,
    }
    return tff.learning.algorithms.build_weighted_fed_avg(
        _functional_model(algorithm.spec, metrics_fns=(_no_client, _this_client, _sum_of_clients)),
        client_weighting=weighting[algorithm.average],
        **common,
    )


def _functional_model(spec: ModelSpec, **metrics: Any) -> tff.learning.models.FunctionalModel:
    @tf.function
    def predict(weights: Any, inputs: Any, training: bool = True) -> Any:
        del training
        return forward(spec, weights[0], inputs)

    inputs = tf.TensorSpec([None, *spec.features], tf.float32)
    return tff.learning.models.FunctionalModel(
        initial_weights=([np.zeros(shape, np.float32) for shape in spec.weight_shapes()], ()),
        predict_on_batch_fn=predict,
        loss_fn=mean_cross_entropy,
        input_spec=(inputs, tf.TensorSpec([None], tf.int32)),
        **metrics,
    )


# TFF replaces a client's non-finite delta by zeros of weight zero without a message. It also resets that client's
# metrics, so a metric that is 1 for every client who trained counts the clients whose delta was finite.
@tf.function
def _no_client() -> OrderedDict[str, Any]:
    return OrderedDict(finite_clients=tf.constant(0.0))


@tf.function
def _this_client(state: Any, labels: Any, batch_output: Any, sample_weight: Any = None) -> OrderedDict[str, Any]:
    del state, labels, batch_output, sample_weight
    return OrderedDict(finite_clients=tf.constant(1.0))


@tf.function
def _sum_of_clients(state: Any) -> OrderedDict[str, Any]:
    return OrderedDict(finite_clients=state["finite_clients"])


def _aggregate_nothing(finalizers: Any = None, unfinalized_type: Any = None) -> Any:
    """A metrics aggregator that lets nothing unnoised leave the clients."""
    del finalizers, unfinalized_type

    @tff.federated_computation(tff.FederatedType(tff.types.to_type(OrderedDict()), tff.CLIENTS))
    def nothing(unused: Any) -> Any:
        del unused
        return tff.federated_value(OrderedDict(), tff.SERVER)

    return nothing
