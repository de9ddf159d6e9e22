"""The configured partition, by name."""

import numpy as np

from pipelines.config.partition_settings import (
    DealtPartition,
    DirichletPartition,
    IidPartition,
    NaturalPartition,
    ResolvedPartition,
    ShardsPartition,
)
from pipelines.core.errors import UserError
from pipelines.data.dataset import Dataset
from pipelines.data.partition.division import Partition


def build_partition(config: ResolvedPartition, dataset: Dataset, rng: np.random.Generator) -> Partition:
    """Divides the training examples among clients as the configuration says.

    Args:
      config: the scheme and its parameters.
      dataset: only its training labels and client ids are looked at.
      rng: the partition's own stream.

    Raises:
      UserError: more clients or shards than examples, or no natural client ids.
    """
    labels = dataset.train.labels
    if isinstance(config, DealtPartition) and config.clients > len(labels):
        raise UserError(
            f"partition.clients={config.clients} exceeds the {len(labels)} training examples; "
            "every client needs at least one: ask for fewer clients"
        )
    match config:
        case IidPartition(clients=clients):
            from pipelines.data.partition.schemes import iid_partition

            return iid_partition(len(labels), num_clients=clients, rng=rng)
        case DirichletPartition(clients=clients, alpha=alpha):
            from pipelines.data.partition.dirichlet import dirichlet_partition

            return dirichlet_partition(labels, num_clients=clients, alpha=alpha, rng=rng)
        case ShardsPartition(clients=clients, shards_per_client=shards):
            from pipelines.data.partition.schemes import shard_partition

            return shard_partition(labels, num_clients=clients, shards_per_client=shards, rng=rng)
        case NaturalPartition():
            from pipelines.data.partition.schemes import natural_partition

            return natural_partition(dataset.name, dataset.client_ids)
