"""The features' part of the configuration."""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.section import Count, Section


class NoFeatures(Section):
    """The inputs as they are."""

    name: Literal["none"] = "none"


class ScatteringConfig(Section):
    """Scattering coefficients of images.

    Attributes:
      scales: J; coefficients are averages over 2^J x 2^J pixels.
      angles: L, orientations of the wavelets.
      groups: of each channel's coefficients; each group is brought to mean 0 and variance 1 within one image (group
        normalisation without parameters). None leaves the coefficients as they are.
    """

    name: Literal["scattering"]
    scales: Annotated[int, Field(ge=1, le=8)]
    angles: Count
    groups: Count | None


FeaturesConfig = Annotated[NoFeatures | ScatteringConfig, Field(discriminator="name")]
