"""The sections of the configuration that say what data is: its source, its features, and its division."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.config.section import Count, NonNegative, Positive, Section
from pipelines.core.errors import UserError

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


class NoFeatures(Section):
    """The inputs as they are."""

    name: Literal["none"] = "none"


class ScatteringConfig(Section):
    """Scattering coefficients of images, and what may be made of them.

    Attributes:
      scales: J; coefficients are averages over 2^J x 2^J pixels.
      angles: L, orientations of the wavelets.
      groups: of each channel's coefficients; each group is brought to mean 0 and variance 1 within one image (group
        normalisation without parameters). None leaves the coefficients as they are.
      rotations: in degrees; coefficients are averaged over the image turned by each of them.
      fourier: random Fourier features that take the coefficients' place; None keeps the coefficients.
      bandwidth: of the Gaussian kernel that those stand for; of `fourier` only.
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

    A value below `lowest` is in no bin. Both numbers below are what a feature is worth where it holds, else it is 0:
    a larger one lets a linear model learn it faster and takes more of an example's clipped gradient.

    Attributes:
      column: of the inputs, from 0.
      lowest, highest: first and last edge, in the inputs' own units.
      bins: between them.
      indicator: of the one bin that the value is in (one-hot coding); 0 leaves these features out.
      threshold: of every edge that the value reaches (thermometer coding); 0 leaves these features out.
      dataset: whose column this is; None where the configuration's reader says so. It makes no feature, so that it
        takes no part in fingerprints.

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
    """Refuses bins of another table's columns: they would take any numbers, and mean nothing.

    Args:
      features: as configured.
      dataset: its name in the configuration.

    Raises:
      UserError: a column of another dataset.
    """
    for place, column in enumerate(features.columns if isinstance(features, BinsConfig) else ()):
        if column.dataset not in (None, dataset):
            raise UserError(
                f"features.columns[{place}] bins column {column.column} of dataset={column.dataset} and says nothing "
                f"of dataset={dataset}; set features=none, or features.columns=[{{column:0,lowest:0,highest:1,"
                "bins:10,indicator:1,threshold:0}] in this table's own units"
            )


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
