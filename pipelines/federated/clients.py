"""What clients train on: one small tf.data pipeline for each client of a cohort."""

from collections.abc import Iterable

import numpy as np

from pipelines.errors import UserError
from pipelines.federated.engine import tf
from pipelines.partition.partition import Partition
from pipelines.pipeline import TrainingData


def require_partition(data: TrainingData) -> Partition:
    """Returns the division among clients.

    Raises:
      UserError: there is none.
    """
    if data.partition is None:
        raise UserError("a federated pipeline needs clients: choose a partition, such as partition=iid")
    return data.partition


class ClientDatasets:
    """Builds the datasets of a cohort, in an order of examples that numpy determines."""

    def __init__(
        self, data: TrainingData, *, local_batch_size: int, local_epochs: int, order: np.random.Generator
    ) -> None:
        """Keeps references to the data, not copies.

        Args:
          data: inputs, labels and the partition.
          local_batch_size: examples of one local step; a client's last batch may be smaller.
          local_epochs: passes of a client over its examples in one round, all in the same order.
          order: stream that each client's order in each round is drawn from.
        """
        self._inputs = data.inputs
        self._labels = data.labels.astype(np.int32)
        self._clients = require_partition(data).clients
        self._batch_size = local_batch_size
        self._epochs = local_epochs
        self._order = order
        self._unordered: dict[int, tf.data.Dataset] = {}

    def of(self, cohort: Iterable[int]) -> list[tf.data.Dataset]:
        """Returns a dataset of (float32 inputs, int32 labels) batches for each client of the cohort."""
        return [self._dataset(int(client)) for client in cohort]

    def _dataset(self, client: int) -> tf.data.Dataset:
        indices = self._clients[client]
        if len(indices) > self._batch_size:
            indices = self._order.permutation(indices)
            slices = tf.data.Dataset.from_tensor_slices((self._inputs[indices], self._labels[indices]))
            return self._finish(slices.batch(self._batch_size))
        # The whole client is one batch, whose mean gradient knows no order: made once and kept.
        if client not in self._unordered:
            batch = tf.data.Dataset.from_tensors((self._inputs[indices], self._labels[indices]))
            self._unordered[client] = self._finish(batch)
        return self._unordered[client]

    def _finish(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        if self._epochs > 1:
            dataset = dataset.repeat(self._epochs)
        return dataset.with_options(_plain_options())


def _plain_options() -> tf.data.Options:
    """Turns off what tf.data does to speed up long pipelines: for a few examples a client it costs half of a round."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options
