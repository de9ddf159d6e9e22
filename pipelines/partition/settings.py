"""The partition's part of the configuration."""

from typing import Literal

from pydantic import model_validator

from pipelines.section import Count, Positive, Section


class PartitionConfig(Section):
    """How training examples are divided among clients.

    Attributes:
      name: the scheme.
      clients: number of clients; None only for natural.
      alpha: Dirichlet concentration; dirichlet only.
      classes_per_client: label shards a client holds; shards only.
    """

    name: Literal["iid", "dirichlet", "shards", "natural"]
    clients: Count | None = None
    alpha: Positive | None = None
    classes_per_client: Count | None = None

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
        return self
