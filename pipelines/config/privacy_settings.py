"""The privacy part of the configuration: the guarantee asked for, and one class for each mechanism that gives it.

A new mechanism is one class here, its name in `PrivacyConfig`, its file in conf/privacy, and its name in the rows of
`pipelines.config.pipeline_table` whose engines run it.
"""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.config.section import Count, Positive, Section


class GuaranteeConfig(Section):
    """The guarantee that is asked for. Exactly one of `epsilon` and `noise_multiplier` is given.

    Attributes:
      epsilon: target, calibrated to a noise multiplier.
      noise_multiplier: sigma, given instead of a target.
      delta: added to the bound on probabilities after the factor e^epsilon; at least 1e-10, since rounding of the
        accountants would show below that.
      clip_norm: L2 bound of one unit's contribution.
      population: public number of units, near the real one; None takes the number of examples or clients as public.
      noise_seed: None draws sampling and noise from OS entropy; a number makes the run reproducible, not private.
      release_copies: whether the log tells how many training examples are equal, which no epsilon covers.
    """

    epsilon: Positive | None
    noise_multiplier: Positive | None
    delta: Annotated[float, Field(ge=1e-10, lt=1)]
    clip_norm: Positive
    population: Count | None
    noise_seed: Annotated[int, Field(ge=0)] | None
    release_copies: bool = False


class FixedConfig(GuaranteeConfig):
    """Gaussian noise on Poisson samples, at a fixed clip norm."""

    name: Literal["fixed"] = "fixed"


class AdaptiveConfig(GuaranteeConfig):
    """The same with a clip norm that follows a private quantile of the norms.

    Attributes:
      target_quantile: share of the contributions left unclipped.
      clip_learning_rate: of the geometric update of the clip norm.
      count_stddev: noise on the count of unclipped units; None is 5 % of the expected sample.
    """

    name: Literal["adaptive"]
    target_quantile: Annotated[float, Field(ge=0, le=1)] = 0.5
    clip_learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.2
    count_stddev: Positive | None = None


class TreeConfig(GuaranteeConfig):
    """DP-FTRL: noise on a tree over the rounds, without sampling.

    Attributes:
      restart_every: rounds of a tree; None grows it as long as no user would join twice.
    """

    name: Literal["tree"]
    restart_every: Count | None = None


class BandedConfig(GuaranteeConfig):
    """Banded matrix factorisation: noise that later steps take off again in part, on groups in turn.

    Attributes:
      bands: steps whose noise is correlated, and groups of units; 1 is `fixed`.
    """

    name: Literal["banded"]
    bands: Count = 4


PrivacyConfig = Annotated[FixedConfig | AdaptiveConfig | TreeConfig | BandedConfig, Field(discriminator="name")]
