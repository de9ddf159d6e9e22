"""The model's part of the configuration."""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.config.section import Count, Section

Activation = Literal["tanh", "relu"]


class LinearConfig(Section):
    """Softmax regression."""

    name: Literal["linear"]


class MlpConfig(Section):
    """Dense layers; `widths` are the hidden units of each."""

    name: Literal["mlp"]
    widths: tuple[Count, ...]
    activation: Activation = "tanh"


class CnnConfig(Section):
    """Two convolutions and two dense layers."""

    name: Literal["cnn"]
    activation: Activation = "tanh"


ModelConfig = Annotated[LinearConfig | MlpConfig | CnnConfig, Field(discriminator="name")]
