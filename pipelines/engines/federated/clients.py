"""What clients train on: where their examples lie, and for the stock engine a tf.data pipeline each."""

from collections.abc import Iterable
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

from pipelines.data.partition.client_batches import ClientBatches
from pipelines.engines.federated.engine import tf
from pipelines.engines.federated.shared_array import SharedArrays
from pipelines.engines.interface import CanaryUpdates, TrainingData

Order = NDArray[np.int32]


class StoredOrders:
    """The orders as places in a storage."""

    def __init__(self, orders: ClientBatches, storage: SharedArrays, canaries: CanaryUpdates | None = None) -> None:
        """Wraps what draws the orders, and holds the storage for as long as somebody draws.

        Args:
          orders: of the clients' examples.
          storage: where those lie.
          canaries: clients that send a given update; the process knows it by its row alone.
        """
        self._orders = orders
        self._storage = storage
        self._canaries = {} if canaries is None else canaries.rows

    def of(self, cohort: Iterable[int]) -> list[Order]:
        """Returns for each client of the cohort the rows of its examples, int32, in the order of this round.

        Those of a canary are -1 - k, as many as it holds examples.
        """
        cohort = [int(client) for client in cohort]
        rows = [self._storage.rows[order] for order in self._orders.of(cohort)]
        for place, client in enumerate(cohort) if self._canaries else ():
            if client in self._canaries:
                rows[place] = np.full(len(rows[place]), -1 - self._canaries[client], np.int32)
        return rows


class PaddedOrders:
    """Fills a Poisson cohort up to one of three sizes, with clients who hold nothing.

    The worker prepares itself for every new size, which takes time and memory that it keeps. A Poisson cohort comes in
    dozens of sizes, and rare ones turn up late. A client who holds nothing sends zeros, which a sum that is divided by
    a constant does not notice. A mean, or a quantile of norms, would.
    """

    def __init__(self, orders: StoredOrders, expected: float) -> None:
        """Wraps what draws the orders of real clients.

        Args:
          orders: of real clients.
          expected: size of a cohort, which is the smallest that is filled up to: cohorts of constant size stay as they
            are. Of Poisson cohorts, whose variance is at most `expected`, one in twenty exceeds the second size and
            about one in a million the last; it stays as it is.
        """
        self._orders = orders
        self._sizes = [ceil(expected + deviations * sqrt(expected)) for deviations in (0, 1.5, 4.5)]

    def of(self, cohort: Iterable[int]) -> list[Order]:
        """Returns the orders of the cohort's clients, and empty ones."""
        orders = self._orders.of(cohort)
        size = next((size for size in self._sizes if size >= len(orders)), len(orders))
        return orders + [np.zeros(0, np.int32)] * (size - len(orders))


class ClientDatasets:
    """Builds a tf.data pipeline for each client of a cohort."""

    def __init__(self, data: TrainingData, orders: ClientBatches, *, local_batch_size: int, local_epochs: int) -> None:
        """Keeps references to the data, not copies.

        Args:
          data: inputs and labels.
          orders: draws the clients' orders.
          local_batch_size: examples of one local step.
          local_epochs: passes of a client over its examples in one round.
        """
        self._inputs = data.inputs
        self._labels = data.labels.astype(np.int32)
        self._orders = orders
        self._batch_size = local_batch_size
        self._epochs = local_epochs

    def of(self, cohort: Iterable[int]) -> list[tf.data.Dataset]:
        """Returns a dataset of (float32 inputs, int32 labels) batches for each client of the cohort."""
        return [self._dataset(order) for order in self._orders.of(cohort)]

    def _dataset(self, order: NDArray[np.int64]) -> tf.data.Dataset:
        examples = (self._inputs[order], self._labels[order])
        if len(order) > self._batch_size:
            dataset = tf.data.Dataset.from_tensor_slices(examples).batch(self._batch_size)
        else:
            dataset = tf.data.Dataset.from_tensors(examples)
        if self._epochs > 1:
            dataset = dataset.repeat(self._epochs)
        return dataset.with_options(_plain_options())


def _plain_options() -> tf.data.Options:
    """Turns off what tf.data does to speed up long pipelines: for a few examples a client it costs half of a round."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options
