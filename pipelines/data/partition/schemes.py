"""Divisions that need no more than a shuffle: even ones, shards of sorted examples, and the users of the data."""

import numpy as np
from numpy.typing import NDArray

from pipelines.core.errors import UserError
from pipelines.data.partition.division import Partition


def iid_partition(num_examples: int, *, num_clients: int, rng: np.random.Generator) -> Partition:
    """Divides shuffled examples evenly.

    Every example belongs to exactly one client; the sizes of two clients differ by at most one.

    Args:
      num_examples: examples to divide.
      num_clients: clients to divide them over, 1 <= num_clients <= num_examples.
      rng: numpy Generator, the partition's own stream.

    Source: McMahan et al. 2017, arXiv:1602.05629, section 3.
    """
    owners = rng.permutation(np.arange(num_examples, dtype=np.int64) % num_clients)
    return Partition.from_owners(owners, num_clients)


def shard_partition(
    labels: NDArray[np.int64], *, num_clients: int, shards_per_client: int, rng: np.random.Generator
) -> Partition:
    """Sorts examples by label, cuts them into equal shards and gives each client some at random.

    Every example belongs to exactly one client; shard sizes differ by at most one. A shard that is no longer than
    the smallest class holds at most two classes, so a client holds at most 2 * shards_per_client classes.

    Args:
      labels: int64, shape (n,).
      num_clients: clients to divide over, >= 1.
      shards_per_client: shards each client gets, >= 1.
      rng: numpy Generator, the partition's own stream.

    Raises:
      UserError: more shards than examples.

    Source: McMahan et al. 2017, arXiv:1602.05629, section 3 ("pathological non-IID"; there 2 of 200 shards of 300).
    """
    shards = num_clients * shards_per_client
    if shards > len(labels):
        raise UserError(
            f"partition.clients={num_clients} times partition.shards_per_client={shards_per_client} makes {shards} "
            f"shards, more than the {len(labels)} training examples; lower one of them"
        )
    # Shuffled first: which examples of a class share a shard must not depend on the order in the file.
    shuffled = rng.permutation(len(labels))
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    client_of_shard = rng.permutation(shards) // shards_per_client
    shard_of_position = np.arange(len(labels)) * shards // len(labels)
    owners = np.empty(len(labels), dtype=np.int64)
    owners[by_label] = client_of_shard[shard_of_position]
    return Partition.from_owners(owners, num_clients)


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
