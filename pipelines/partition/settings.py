"""The partition's part of the configuration."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.errors import UserError
from pipelines.section import Count, Positive, Section

DEALT_CLIENTS = 100
"""Clients that partition=auto deals examples to, unless it is told how many."""


class PartitionConfig(Section):
    """How training examples are divided among clients.

    Attributes:
      name: the scheme; auto is natural where the data names its clients, else iid.
      clients: number of clients; None only for natural, and for auto, which then decides.
      alpha: Dirichlet concentration; dirichlet only.
      classes_per_client: label shards a client holds; shards only.
      seed: that clients are drawn from; None takes the run's. A number keeps them the same over runs of many seeds.
    """

    name: Literal["auto", "iid", "dirichlet", "shards", "natural"]
    clients: Count | None = None
    alpha: Positive | None = None
    classes_per_client: Count | None = None
    seed: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _fields_fit_the_scheme(self) -> "PartitionConfig":
        wants = {
            "clients": self.name != "natural",
            "alpha": self.name == "dirichlet",
            "classes_per_client": self.name == "shards",
        }
        for field, wanted in wants.items():
            if field == "clients" and self.name == "auto":
                continue
            if wanted != (getattr(self, field) is not None):
                verb = "needs" if wanted else "does not take"
                name = "iid" if self.name == "auto" else self.name  # what nobody has chosen shows as what it deals
                raise ValueError(
                    f"partition={name} {verb} partition.{field}; got {getattr(self, field)}{_owner(field)}"
                )
        if self.name == "natural" and self.seed is not None:
            raise ValueError(f"partition=natural does not take partition.seed; got {self.seed}")
        return self

    def resolved(self, *, has_clients: bool, divided: bool) -> "PartitionConfig":
        """What auto stands for; any other scheme as it is.

        Args:
          has_clients: whether the data names the client of each example.
          divided: whether the run divides its data at all.

        Raises:
          UserError: auto is told how to deal examples that have clients of their own.
        """
        if self.name != "auto":
            return self
        if not has_clients:
            return PartitionConfig(name="iid", clients=self.clients or DEALT_CLIENTS, seed=self.seed)
        for field in ("clients", "seed"):
            if divided and (value := getattr(self, field)) is not None:
                raise UserError(
                    f"partition.{field}={value} is for examples dealt to simulated clients, but this data names its "
                    f"own (client_ids); set partition.{field}=null to train on those, or partition=iid to simulate"
                )
        return PartitionConfig(name="natural")


def _owner(field: str) -> str:
    """Which scheme a field belongs to, where it is one."""
    owners = {"alpha": "; choose partition=dirichlet", "classes_per_client": "; choose partition=shards"}
    return owners.get(field, "")
