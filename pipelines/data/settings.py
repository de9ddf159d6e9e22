"""The dataset's part of the configuration."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.section import Count, Section

NAMED = 3
"""Datasets of a sweep that its experiment is named after."""


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


def title(name: str, file: str | None) -> str:
    """A dataset's name for readers: what the loader calls it, or its own file's name without .npz."""
    return Path(file).expanduser().stem if name == "npz" and file is not None else name


def titles(names: Sequence[str], files: Sequence[str | None]) -> str:
    """One name for every dataset of a sweep: of all combinations of loaders and files, those that are loaded.

    Files of the same name are told apart by their folders.

    Args:
      names: of loaders.
      files: of dataset=npz.
    """
    chosen = [(name, file if name == "npz" else None) for name in names for file in files]
    pairs = list(dict.fromkeys(chosen))
    plain = [title(*pair) for pair in pairs]
    told = [
        f"{Path(file).expanduser().absolute().parent.name}-{text}"
        if file is not None and plain.count(text) > 1
        else text
        for text, (_, file) in zip(plain, pairs, strict=True)
    ]
    more = [f"{len(told) - NAMED}more"] if len(told) > NAMED else []
    return "+".join([*told[:NAMED], *more])
