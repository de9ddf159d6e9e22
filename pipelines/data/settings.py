"""The dataset's part of the configuration."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.section import Count, Section


class DatasetConfig(Section):
    """Where the data comes from.

    Attributes:
      name: which loader.
      folder: a local folder that holds the raw files; None uses the cache, then a download.
      file: the user's archive; npz only.
      classes: number of classes; npz only, whose archive may state it too.
      bounds: column, lowest and highest value of columns to be mapped onto [0, 1]; npz only, whose archive may state
        them too.
      limit: keep only the first `limit` training examples after a public shuffle; None keeps all. For quick looks.
    """

    name: Literal["digits", "mnist", "fashion_mnist", "adult", "npz"]
    folder: str | None = None
    file: str | None = None
    classes: Annotated[int, Field(ge=2)] | None = None
    bounds: tuple[tuple[Annotated[int, Field(ge=0)], float, float], ...] | None = None
    limit: Count | None = None

    @model_validator(mode="after")
    def _npz_needs_a_file(self) -> "DatasetConfig":
        if (self.name == "npz") != (self.file is not None):
            raise ValueError(
                "dataset=npz needs dataset.file=PATH.npz"
                if self.file is None
                else f"dataset.file={self.file} belongs to dataset=npz; with dataset={self.name} drop it"
            )
        for field in ("classes", "bounds"):
            if (value := getattr(self, field)) is not None and self.name != "npz":
                raise ValueError(f"dataset.{field}={value} belongs to dataset=npz; with dataset={self.name} drop it")
        return self
