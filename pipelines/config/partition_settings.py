"""The section of the configuration that says how training examples are divided among clients or users."""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.config.section import Count, Positive, Section
from pipelines.core.errors import UserError

DEALT_CLIENTS = 100
"""Number of clients of partition=auto where the data names none and partition.clients is null."""
Seed = Annotated[int, Field(ge=0)]


class AutoPartition(Section):
    """The clients that the data names; if it names none, the same as iid.

    Attributes:
      clients: number of simulated clients; None means 100.
      seed: as in `DealtPartition`.
    """

    name: Literal["auto"]
    clients: Count | None = None
    seed: Seed | None = None

    def resolved(self, *, has_clients: bool, divided: bool) -> "NaturalPartition | IidPartition":
        """Returns the partition that auto chooses.

        Args:
          has_clients: whether the data names the client of each example.
          divided: whether the run divides its data at all.

        Raises:
          UserError: settings of simulated clients are given, but the data names its own.
        """
        if not has_clients:
            return IidPartition(name="iid", clients=self.clients or DEALT_CLIENTS, seed=self.seed)
        for field, value in (("clients", self.clients), ("seed", self.seed)):
            if divided and value is not None:
                raise UserError(
                    f"partition.{field}={value} is for examples dealt to simulated clients, but this data names its "
                    f"own (client_ids); set partition.{field}=null to train on those, or partition=iid to simulate"
                )
        return NaturalPartition(name="natural")


class NaturalPartition(Section):
    """Clients as they come with the data."""

    name: Literal["natural"]


class DealtPartition(Section):
    """Examples are dealt to simulated clients.

    Attributes:
      clients: number of clients.
      seed: of the draw of clients; None takes the run's seed. A number keeps the clients the same over runs with
        different seeds.
    """

    clients: Count
    seed: Seed | None = None


class IidPartition(DealtPartition):
    """Shuffled examples, dealt out evenly."""

    name: Literal["iid"]


class DirichletPartition(DealtPartition):
    """Clients of equal size, each with its own label mix; a smaller `alpha` is more skewed."""

    name: Literal["dirichlet"]
    alpha: Positive


class ShardsPartition(DealtPartition):
    """Examples sorted by label and cut into shards, `shards_per_client` for each client."""

    name: Literal["shards"]
    shards_per_client: Count


ResolvedPartition = NaturalPartition | IidPartition | DirichletPartition | ShardsPartition
PartitionConfig = Annotated[AutoPartition | ResolvedPartition, Field(discriminator="name")]
