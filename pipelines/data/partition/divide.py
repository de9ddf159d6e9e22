"""The configured partition, by name."""

import numpy as np

from pipelines.config.data_settings import PartitionConfig
from pipelines.core.errors import UserError
from pipelines.data.dataset import Dataset
from pipelines.data.partition.division import Partition


def build_partition(config: PartitionConfig, dataset: Dataset, rng: np.random.Generator) -> Partition:
    """Divides the training examples among clients as the configuration says.

    Args:
      config: the scheme and its parameters, resolved.
      dataset: only its training labels and client ids are looked at.
      rng: the partition's own stream.

    Raises:
      UserError: more clients or shards than examples, or no natural client ids.
    """
    labels = dataset.train.labels
    if config.clients is not None and config.clients > len(labels):
        raise UserError(
            f"partition.clients={config.clients} exceeds the {len(labels)} training examples; "
            "every client needs at least one: ask for fewer clients"
        )
    match config:
        case PartitionConfig(name="iid", clients=int(clients)):
            from pipelines.data.partition.iid import iid_partition

            return iid_partition(len(labels), num_clients=clients, rng=rng)
        case PartitionConfig(name="dirichlet", clients=int(clients), alpha=float(alpha)):
            from pipelines.data.partition.dirichlet import dirichlet_partition

            return dirichlet_partition(labels, num_clients=clients, alpha=alpha, rng=rng)
        case PartitionConfig(name="shards", clients=int(clients), classes_per_client=int(shards)):
            from pipelines.data.partition.shards import shard_partition

            return shard_partition(labels, num_clients=clients, shards_per_client=shards, rng=rng)
        case PartitionConfig(name="natural"):
            from pipelines.data.partition.natural import natural_partition

            return natural_partition(dataset.name, dataset.client_ids)
    raise UserError(f"partition={config.name} lacks a parameter; got {config}")
