"""Clients as they come with the data: a writer, a hospital, a customer."""

import numpy as np
from numpy.typing import NDArray

from pipelines.core.errors import UserError
from pipelines.data.partition.division import Partition


def natural_partition(dataset: str, client_ids: NDArray[np.int64] | None) -> Partition:
    """Gives each example to its own client; clients are in the order of their ids.

    Args:
      dataset: its name, for the message.
      client_ids: int64, shape (n,), any values; None where the dataset has none.

    Raises:
      UserError: the dataset has no client ids.
    """
    if client_ids is None:
        raise UserError(
            f"partition=natural: dataset {dataset} has no client_ids; choose partition=iid, dirichlet or shards, or "
            "give an array client_ids in the archive of dataset=npz"
        )
    ids, owners = np.unique(client_ids, return_inverse=True)
    return Partition.from_owners(owners.astype(np.int64), len(ids))
