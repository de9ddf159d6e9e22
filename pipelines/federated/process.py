"""The stock `tff.learning` process of a recipe, and the server's side of a run of it."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from pipelines.federated.engine import tf, tff
from pipelines.federated.model import forward, mean_cross_entropy
from pipelines.federated.noise import Noise, private_mean, with_fresh_keys
from pipelines.federated.optimizer import anchored, build_optimizer
from pipelines.model.spec import ModelSpec, Weights

# A delta beyond this on any coordinate is cut under privacy: the square of its norm would overflow float32, the clip
# would return NaN, and a single user would decide whether the round's noised sum exists at all.
PRIVATE_REACH = 1e15


@dataclass(frozen=True, kw_only=True)
class Rule:
    """An optimizer by name.

    Attributes:
      name: sgd, adam, adagrad or yogi.
      learning_rate: > 0.
      momentum: of sgd, in [0, 1); the others bring their own.
    """

    name: Literal["sgd", "adam", "adagrad", "yogi"]
    learning_rate: float
    momentum: float


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that the traced process depends on. Weights, data, cohorts and rounds come later.

    Attributes:
      spec: the architecture.
      client: optimizer of the local steps.
      server: optimizer of the rounds; its gradient is the negative average delta.
      proximal_strength: FedProx's mu, >= 0.
      average: weights of clients in the mean, or the private aggregation.
    """

    spec: ModelSpec
    client: Rule
    server: Rule
    proximal_strength: float
    average: Literal["examples", "uniform"] | Noise


@lru_cache(maxsize=16)
def build_process(recipe: Recipe) -> tff.learning.templates.LearningProcess:
    """Builds the process once for each recipe, so that a sweep over seeds traces it once."""
    private = isinstance(recipe.average, Noise)
    client = build_optimizer(recipe.client.name, recipe.client.learning_rate, recipe.client.momentum, "client")
    reach = PRIVATE_REACH if private else None
    if private or recipe.proximal_strength > 0:
        client = anchored(client, proximal_strength=recipe.proximal_strength, reach=reach)
    common = {
        "client_optimizer_fn": client,
        "server_optimizer_fn": build_optimizer(
            recipe.server.name, recipe.server.learning_rate, recipe.server.momentum, "server"
        ),
        # The other loop compiles a reduction for each dataset: three times the cost for a few batches a client.
        "loop_implementation": tff.learning.LoopImplementation.DATASET_ITERATOR,
    }
    if isinstance(recipe.average, Noise):
        return tff.learning.algorithms.build_unweighted_fed_avg(
            _functional_model(recipe.spec),
            model_aggregator=private_mean(recipe.average),
            metrics_aggregator=_aggregate_nothing,
            **common,
        )
    weighting = {
        "examples": tff.learning.ClientWeighting.NUM_EXAMPLES,
        "uniform": tff.learning.ClientWeighting.UNIFORM,
    }
    return tff.learning.algorithms.build_weighted_fed_avg(
        _functional_model(recipe.spec, metrics_fns=(_no_client, _this_client, _sum_of_clients)),
        client_weighting=weighting[recipe.average],
        **common,
    )


class Server:
    """A run of the process: the server's state, moved one round at a time.

    Attributes:
      metrics: of the last round, as the process reports them; empty before the first.
    """

    def __init__(self, recipe: Recipe, initial_weights: Weights, noise: np.random.Generator | None = None) -> None:
        """Puts the process at its start.

        Args:
          recipe: what the process is built from.
          initial_weights: in the spec's order and layout; they are copied.
          noise: stream that the keys of all noise come from; None where nothing is private. The process is shared by
            all runs of a recipe, so that keys are part of the state alone.

        Raises:
          ValueError: a private recipe without that stream.
        """
        if isinstance(recipe.average, Noise) and noise is None:
            raise ValueError("a private recipe needs a stream for the keys of its noise")
        self._process = build_process(recipe)
        start = tff.learning.models.ModelWeights(tuple(initial_weights), ())
        self._state = self._process.set_model_weights(self._process.initialize(), start)
        if noise is not None:
            aggregator = self._state.aggregator
            keyed = aggregator._replace(query_state=with_fresh_keys(aggregator.query_state, noise))
            self._state = self._state._replace(aggregator=keyed)
        self.metrics: dict[str, Any] = {}

    def round(self, datasets: Sequence[Any]) -> dict[str, Any]:
        """Runs one round on the clients' datasets, which may be none, and returns the process's metrics."""
        output = self._process.next(self._state, list(datasets))
        self._state = output.state
        self.metrics = output.metrics
        return self.metrics

    @property
    def weights(self) -> Weights:
        """The weights now, in the spec's order. Each round makes new arrays, so these never change."""
        return [np.asarray(value, np.float32) for value in self._state.global_model_weights.trainable]

    @property
    def dp_event(self) -> Any:
        """What TFF says the last private round did, as a `dp_accounting.DpEvent` without the sampling."""
        return tff.aggregators.differential_privacy.extract_dp_event_from_state(self._state.aggregator)


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


# TFF replaces a client's non-finite delta by zeros of weight zero and says nothing. It also resets that client's
# metrics, so a metric that is 1 for every client who trained counts those whose delta was finite.
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
