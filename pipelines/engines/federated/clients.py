"""What clients train on: rows of the shared arrays or, for the stock engine, one tf.data pipeline each."""

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
    """The orders of the clients' examples, as rows of the shared arrays."""

    def __init__(self, batches: ClientBatches, arrays: SharedArrays, canaries: CanaryUpdates | None = None) -> None:
        """Keeps references; the arrays exist as long as this object.

        Args:
          batches: draws the clients' orders.
          arrays: hold the examples.
          canaries: clients that send a given update; the process gets only the update's row.
        """
        self._batches = batches
        self._arrays = arrays
        self._canaries = {} if canaries is None else canaries.rows

    def of(self, cohort: Iterable[int]) -> list[Order]:
        """Returns for each client of the cohort the rows of its examples, int32, in the order of this round.

        For canary k, every row is -1 - k; it has as many rows as examples.
        """
        cohort = [int(client) for client in cohort]
        rows = [self._arrays.rows[order] for order in self._batches.of(cohort)]
        for place, client in enumerate(cohort) if self._canaries else ():
            if client in self._canaries:
                rows[place] = np.full(len(rows[place]), -1 - self._canaries[client], np.int32)
        return rows


class PaddedOrders:
    """Pads a Poisson cohort to one of three sizes with clients who have no examples.

    The worker prepares for every new size, which takes time, and memory that it never frees. Poisson cohorts have
    dozens of sizes, and rare sizes come late. A client without examples sends zeros. They do not change a sum that is
    divided by a constant, but would change a mean or a quantile of norms.
    """

    def __init__(self, orders: StoredOrders, expected: float) -> None:
        """Takes the orders of real clients.

        Args:
          orders: draws the orders of real clients.
          expected: expected size of a cohort, and the smallest padded size, so that cohorts of constant size stay as
            they are. The variance of a Poisson cohort is at most `expected`. One cohort in twenty exceeds the second
            size, and about one in a million exceeds the last; that one stays as it is.
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

    def __init__(self, data: TrainingData, batches: ClientBatches, *, local_batch_size: int, local_epochs: int) -> None:
        """Keeps references to the data, not copies.

        Args:
          data: inputs and labels.
          batches: draws the clients' orders.
          local_batch_size: examples of one local step.
          local_epochs: passes of a client over its examples in one round.
        """
        self._inputs = data.inputs
        self._labels = data.labels.astype(np.int32)
        self._batches = batches
        self._batch_size = local_batch_size
        self._epochs = local_epochs

    def of(self, cohort: Iterable[int]) -> list[tf.data.Dataset]:
        """Returns a dataset of (float32 inputs, int32 labels) batches for each client of the cohort."""
        return [self._dataset(order) for order in self._batches.of(cohort)]

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
    """Turns off tf.data's optimisations for long pipelines: with few examples per client they cost half of a round."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options
