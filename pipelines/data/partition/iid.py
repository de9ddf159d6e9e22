"""Clients whose data has the same distribution."""

import numpy as np

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
