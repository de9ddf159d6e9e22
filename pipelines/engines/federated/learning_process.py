"""The server's side of a run: its process, fast or stock, and the state that moves one round at a time."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from pipelines.config.pipeline_settings import FederatedConfig
from pipelines.core.errors import GuaranteeError, UserError
from pipelines.data.partition.client_batches import ClientBatches
from pipelines.engines.federated import fast, stock
from pipelines.engines.federated.algorithm import AlgorithmSpec, LocalWork
from pipelines.engines.federated.clients import ClientDatasets, PaddedOrders, StoredOrders
from pipelines.engines.federated.engine import tff
from pipelines.engines.federated.secure import SumBounds
from pipelines.engines.federated.shared_array import store
from pipelines.engines.federated.tff_noise import Noise, with_fresh_keys
from pipelines.engines.federated.tree_noise import node_event
from pipelines.engines.interface import TrainingData, require_partition
from pipelines.model.spec import Weights


class Clients(Protocol):
    """What a process is fed with."""

    def of(self, cohort: Iterable[int]) -> Sequence[Any]:
        """Returns the input of each client of the cohort."""


class Server:
    """A run of the process: the server's state, moved one round at a time.

    Attributes:
      metrics: of the last round, as the process reports them; empty before the first.
    """

    def __init__(
        self,
        settings: FederatedConfig,
        data: TrainingData,
        average: Literal["examples", "uniform"] | Noise,
        *,
        order: np.random.Generator,
        noise: np.random.Generator | None = None,
        bounds: SumBounds | None = None,
        cohort_size: float | None = None,
    ) -> None:
        """Puts the process at its start.

        Args:
          settings: of local and server optimization, and the engine.
          data: inputs, labels, partition, architecture and initial weights.
          average: weights of clients in the mean, or the private aggregation.
          order: stream that each client's order of examples in each round is drawn from.
          noise: stream that the keys of all noise come from; None where nothing is private. The process is shared by
            all runs of a recipe, so that keys are part of the state alone.
          bounds: of secure aggregation without privacy; None sums in the clear.
          cohort_size: expected, where it varies by chance; None where each size comes as it is.

        Raises:
          UserError: no partition, or canaries in the stock engine.
          ValueError: private aggregation without that stream.
        """
        if isinstance(average, Noise) and noise is None:
            raise ValueError("private aggregation needs a stream for the keys of its noise")
        recipe = AlgorithmSpec.of(settings, data.spec, average, bounds)
        self._process, self._clients = _engine(settings, data, recipe, order, cohort_size)
        start = tff.learning.models.ModelWeights(tuple(data.initial_weights), ())
        self._state = self._process.initialize()._replace(global_model_weights=start)
        if noise is not None:
            aggregator = self._state.aggregator
            _require_query_only(aggregator)
            keyed = aggregator._replace(query_state=with_fresh_keys(aggregator.query_state, noise))
            self._state = self._state._replace(aggregator=keyed)
        self.metrics: dict[str, Any] = {}

    def round(self, cohort: Iterable[int]) -> dict[str, Any]:
        """Runs one round with these clients, who may be none, and returns the process's metrics."""
        output = self._process.next(self._state, list(self._clients.of(cohort)))
        self._state = output.state
        self.metrics = output.metrics
        return self.metrics

    @property
    def weights(self) -> Weights:
        """The weights now, in the spec's order. Each round makes new arrays, so these never change."""
        return [np.asarray(value, np.float32) for value in self._state.global_model_weights.trainable]

    @property
    def dp_event(self) -> Any:
        """What the state says the last private round did, as a `dp_accounting.DpEvent` without the sampling.

        Of trees it is the event of one node: TFF has none for a round of theirs.
        """
        query = self._state.aggregator.query_state.numerator_state
        if hasattr(query, "inner_query_state"):
            return node_event(query)
        return tff.aggregators.differential_privacy.extract_dp_event_from_state(self._state.aggregator)


def _require_query_only(aggregator: Any) -> None:
    """Whatever else an aggregation remembers of its clients has no noise, such as the quantile behind zeroing."""
    if getattr(aggregator, "_fields", None) != ("query_state", "agg_state", "dp_event", "is_init_state"):
        raise GuaranteeError("the private aggregation keeps more state than its query's: the epsilon would be false")


def _engine(
    settings: FederatedConfig,
    data: TrainingData,
    recipe: AlgorithmSpec,
    order: np.random.Generator,
    cohort_size: float | None,
) -> tuple[tff.templates.IterativeProcess, Clients]:
    partition, batch_size, epochs = require_partition(data), settings.local_batch_size, settings.local_epochs
    orders = ClientBatches(partition, local_batch_size=batch_size, order=order)
    if settings.engine == "stock":
        if data.canaries is not None:
            raise UserError("audit=canary_clients needs pipeline.engine=fast: tff.learning's own clients all train")
        return stock.build_process(recipe), ClientDatasets(
            data, orders, local_batch_size=batch_size, local_epochs=epochs
        )
    storage = store(data)
    work = LocalWork.of(batch_size=batch_size, epochs=epochs, largest=int(partition.sizes.max()))
    summed = isinstance(recipe.average, Noise) and recipe.average.adaptive is None
    process = fast.build_process(recipe, work, storage.inputs, storage.labels, storage.canaries)
    stored = StoredOrders(orders, storage, data.canaries)
    return process, PaddedOrders(stored, cohort_size) if summed and cohort_size is not None else stored
