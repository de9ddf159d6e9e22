"""The sections of the configuration about data: its source and its features."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from pipelines.config.section import Count, NonNegative, Positive, Section
from pipelines.core.errors import UserError

NAMED = 3
"""Most datasets of a sweep in the name of its experiment."""


class LimitedConfig(Section):
    """Settings of every dataset.

    Attributes:
      limit: keep only the first `limit` training examples after a public shuffle; None keeps all. For quick looks.
    """

    limit: Count | None = None


class DigitsConfig(LimitedConfig):
    """Handwritten digits from scikit-learn."""

    name: Literal["digits"]


class DownloadedConfig(LimitedConfig):
    """Published files.

    Attributes:
      name: of the dataset; `data/load.py` knows which there are, and refuses others.
      folder: a local folder that holds the files; None uses the cache, then a download.
    """

    name: str
    folder: str | None = None


class NpzConfig(LimitedConfig):
    """The user's own archive.

    Attributes:
      file: its path.
      classes: number of classes; the archive can hold it instead.
      bounds: column, lowest and highest value of the columns that are mapped onto [0, 1]; the archive can hold them
        instead.
    """

    name: Literal["npz"]
    file: str
    classes: Annotated[int, Field(ge=2)] | None = None
    bounds: tuple[tuple[Annotated[int, Field(ge=0)], float, float], ...] | None = None

    @field_validator("file", mode="before")
    @classmethod
    def _needs_a_file(cls, file: object) -> object:
        if file is None:
            raise ValueError("dataset=npz needs dataset.file=PATH.npz")
        return file


def _kind(values: Any) -> str | None:
    """Which of the sections below holds a dataset; every name without a section of its own is a downloaded one."""
    name = values.get("name") if isinstance(values, dict) else getattr(values, "name", None)
    return None if name is None else name if name in ("digits", "npz") else "downloaded"


DatasetConfig = Annotated[
    Annotated[DigitsConfig, Tag("digits")]
    | Annotated[DownloadedConfig, Tag("downloaded")]
    | Annotated[NpzConfig, Tag("npz")],
    Discriminator(_kind),
]


def title(name: str, file: str | None) -> str:
    """A dataset's name for readers: the name in the configuration, or the file's name without .npz."""
    return Path(file).expanduser().stem if name == "npz" and file is not None else name


def titles(names: Sequence[str], files: Sequence[str | None]) -> str:
    """One name for all datasets of a sweep.

    Files of the same name get the name of their folder in front.

    Args:
      names: of the datasets.
      files: of dataset=npz; other datasets have none.
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


class NoFeatures(Section):
    """The inputs as they are."""

    name: Literal["none"] = "none"


class ScatteringConfig(Section):
    """Scattering coefficients of images, and random Fourier features of them.

    Attributes:
      scales: J; coefficients are averages over 2^J x 2^J pixels.
      angles: L, orientations of the wavelets.
      groups: of each channel's coefficients; each group is brought to mean 0 and variance 1 within one image (group
        normalisation without parameters). None leaves the coefficients as they are.
      rotations: in degrees; coefficients are averaged over the image turned by each of them.
      fourier: number of random Fourier features that replace the coefficients; None keeps the coefficients.
      bandwidth: of the Gaussian kernel that the Fourier features approximate; given with `fourier` only.
    """

    name: Literal["scattering", "scattering_kernel"]
    scales: Annotated[int, Field(ge=1, le=8)]
    angles: Count
    groups: Count | None
    rotations: Annotated[tuple[Annotated[float, Field(ge=-180, le=180)], ...], Field(min_length=1)] = (0.0,)
    fourier: Count | None = None
    bandwidth: Positive | None = None

    @model_validator(mode="after")
    def _bandwidth_of_a_kernel(self) -> "ScatteringConfig":
        if (self.fourier is None) != (self.bandwidth is None):
            raise ValueError(
                f"features.fourier={self.fourier} and features.bandwidth={self.bandwidth} go together; give both or "
                "neither"
            )
        return self


class BinnedColumn(Section):
    """Even bins of one column between two public values: [edge 0, edge 1), ..., and one from `highest` on.

    A value below `lowest` is in no bin. `indicator` and `threshold` are the value of a feature that holds; a feature
    that does not hold is 0. With a larger value a linear model learns the feature faster, and the feature takes more
    of an example's clipped gradient.

    Attributes:
      column: of the inputs, from 0.
      lowest, highest: first and last edge, in the units of the inputs.
      bins: number of bins between them.
      indicator: of the one bin that the value is in (one-hot coding); 0 leaves these features out.
      threshold: of every edge that the value reaches (thermometer coding); 0 leaves these features out.
      dataset: that has the column; None accepts any dataset. It changes no feature, so fingerprints leave it out.

    Source: for thermometer coding, Buckman et al. 2018, "Thermometer Encoding", section 3.
    """

    column: Annotated[int, Field(ge=0)]
    lowest: Annotated[float, Field(allow_inf_nan=False)]
    highest: Annotated[float, Field(allow_inf_nan=False)]
    bins: Count
    indicator: NonNegative
    threshold: NonNegative
    dataset: Annotated[str | None, Field(exclude=True)] = None

    @model_validator(mode="after")
    def _has_bins(self) -> "BinnedColumn":
        if self.lowest >= self.highest:
            raise ValueError(
                f"features.columns: column {self.column} has lowest={self.lowest:g} and highest={self.highest:g}; "
                "lowest must be the smaller"
            )
        if self.indicator == 0 == self.threshold:
            raise ValueError(
                f"features.columns: column {self.column} has indicator=0 and threshold=0, which leaves nothing; set "
                "one of them above 0, or drop the column"
            )
        return self


class BinsConfig(Section):
    """Public bins of some columns of a table, added to its inputs."""

    name: Literal["bins"]
    columns: Annotated[tuple[BinnedColumn, ...], Field(min_length=1)]


FeaturesConfig = Annotated[NoFeatures | ScatteringConfig | BinsConfig, Field(discriminator="name")]


def require_columns_of(features: NoFeatures | ScatteringConfig | BinsConfig, dataset: str) -> None:
    """Refuses bins that were made for the columns of another dataset: they would be computed and mean nothing.

    Args:
      features: as configured.
      dataset: its name in the configuration.

    Raises:
      UserError: a column of another dataset.
    """
    for place, column in enumerate(features.columns if isinstance(features, BinsConfig) else ()):
        if column.dataset not in (None, dataset):
            raise UserError(
                f"features.columns[{place}] bins column {column.column} of dataset={column.dataset} and does not "
                f"fit dataset={dataset}; set features=none, or features.columns=[{{column:0,lowest:0,highest:1,"
                "bins:10,indicator:1,threshold:0}] in this table's own units"
            )
