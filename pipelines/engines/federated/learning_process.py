"""The server's side of a run: its process, fast or stock, and the state that each round updates."""

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
    """Gives a process the input of its clients."""

    def of(self, cohort: Iterable[int]) -> Sequence[Any]:
        """Returns the input of each client of the cohort."""


class Server:
    """A run of the process: the server's state, which each round updates.

    Attributes:
      metrics: metrics of the last round, as the process reports them; empty before the first round.
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
        """Builds the process and its first state.

        Args:
          settings: local and server optimization, and the engine.
          data: inputs, labels, partition, architecture and initial weights.
          average: how clients count in the mean, or the noise of the private aggregation.
          order: stream for each client's order of examples in each round.
          noise: stream for the keys of all noise; None without privacy. All runs of an algorithm share its process, so
            keys are in the state alone.
          bounds: bounds of secure aggregation without privacy; None sums in the clear.
          cohort_size: expected size of a cohort, if it is random; None does not pad cohorts.

        Raises:
          UserError: there is no partition, or there are canaries in the stock engine.
          ValueError: private aggregation without a stream for its noise.
        """
        if isinstance(average, Noise) and noise is None:
            raise ValueError("private aggregation needs a stream for the keys of its noise")
        algorithm = AlgorithmSpec.of(settings, data.spec, average, bounds)
        self._process, self._clients = _engine(settings, data, algorithm, order, cohort_size)
        start = tff.learning.models.ModelWeights(tuple(data.initial_weights), ())
        self._state = self._process.initialize()._replace(global_model_weights=start)
        if noise is not None:
            aggregator = self._state.aggregator
            _require_query_only(aggregator)
            keyed = aggregator._replace(query_state=with_fresh_keys(aggregator.query_state, noise))
            self._state = self._state._replace(aggregator=keyed)
        self.metrics: dict[str, Any] = {}

    def round(self, cohort: Iterable[int]) -> dict[str, Any]:
        """Runs one round with these clients, possibly none, and returns the process's metrics."""
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
        """The last private round according to the state, as a `dp_accounting.DpEvent` without the sampling.

        For tree noise it is the event of one node: TFF has no event for a round.
        """
        query = self._state.aggregator.query_state.numerator_state
        if hasattr(query, "inner_query_state"):
            return node_event(query)
        return tff.aggregators.differential_privacy.extract_dp_event_from_state(self._state.aggregator)


def _require_query_only(aggregator: Any) -> None:
    """Refuses an aggregation that keeps other state: that state has no noise, such as the quantile for zeroing."""
    if getattr(aggregator, "_fields", None) != ("query_state", "agg_state", "dp_event", "is_init_state"):
        raise GuaranteeError("the private aggregation keeps more state than its query's: the epsilon would be false")


def _engine(
    settings: FederatedConfig,
    data: TrainingData,
    algorithm: AlgorithmSpec,
    order: np.random.Generator,
    cohort_size: float | None,
) -> tuple[tff.templates.IterativeProcess, Clients]:
    partition, batch_size, epochs = require_partition(data), settings.local_batch_size, settings.local_epochs
    batches = ClientBatches(partition, local_batch_size=batch_size, order=order)
    if settings.engine == "stock":
        if data.canaries is not None:
            raise UserError("audit=canary_clients needs pipeline.engine=fast: tff.learning's own clients all train")
        return stock.build_process(algorithm), ClientDatasets(
            data, batches, local_batch_size=batch_size, local_epochs=epochs
        )
    arrays = store(data)
    work = LocalWork.of(batch_size=batch_size, epochs=epochs, largest=int(partition.sizes.max()))
    summed = isinstance(algorithm.average, Noise) and algorithm.average.adaptive is None
    process = fast.build_process(algorithm, work, arrays.inputs, arrays.labels, arrays.canaries)
    stored = StoredOrders(batches, arrays, data.canaries)
    return process, PaddedOrders(stored, cohort_size) if summed and cohort_size is not None else stored
