"""The features' part of the configuration."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.errors import UserError
from pipelines.section import Count, NonNegative, Positive, Section


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
