"""The partition's part of the configuration."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.section import Count, Positive, Section


class PartitionConfig(Section):
    """How training examples are divided among clients.

    Attributes:
      name: the scheme.
      clients: number of clients; None only for natural.
      alpha: Dirichlet concentration; dirichlet only.
      classes_per_client: label shards a client holds; shards only.
      seed: that clients are drawn from; None takes the run's. A number keeps them the same over runs of many seeds.
    """

    name: Literal["iid", "dirichlet", "shards", "natural"]
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
            if wanted != (getattr(self, field) is not None):
                verb = "needs" if wanted else "does not take"
                raise ValueError(f"partition={self.name} {verb} partition.{field}; got {getattr(self, field)}")
        if self.name == "natural" and self.seed is not None:
            raise ValueError(f"partition=natural does not take partition.seed; got {self.seed}")
        return self
