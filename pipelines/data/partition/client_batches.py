"""The order of each client's examples. Both engines use the same draw, so both train alike."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pipelines.data.partition.division import Partition


class ClientBatches:
    """Draws the order in which each client of a cohort takes its examples, the same in all epochs of a round."""

    def __init__(
        self, partition: Partition, *, local_batch_size: int, order: np.random.Generator, most: int | None = None
    ) -> None:
        """Keeps the partition, not copies of it.

        Args:
          partition: of the examples.
          local_batch_size: examples of one local step; a client's last batch may be smaller.
          order: stream that the orders are drawn from.
          most: largest number of a client's examples in a round, drawn anew each time; None takes all of them.
        """
        self._clients = partition.clients
        # A client that fits into one batch needs no order: the mean gradient does not depend on it.
        self._fits = local_batch_size if most is None else min(local_batch_size, most)
        self._order = order
        self._most = most

    def of(self, cohort: Iterable[int]) -> list[NDArray[np.int64]]:
        """Returns for each client of the cohort the indices of its examples, in the order of this round."""
        return [self._of(int(client)) for client in cohort]

    def _of(self, client: int) -> NDArray[np.int64]:
        indices = self._clients[client]
        if len(indices) > self._fits:
            indices = self._order.permutation(indices)[: self._most]
        return indices
