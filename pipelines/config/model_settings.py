"""The model's part of the configuration: a named architecture, or a list of layers."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from pipelines.config.section import Count, Number, Section

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


def _both_sides(value: Any) -> Any:
    """One number stands for height and width."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value, value)
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise PydanticCustomError("size", "input should be a whole number, or two: [height, width]")
    return value


Size = Annotated[tuple[Count, Count], BeforeValidator(_both_sides)]
Margin = Annotated[int, Number, Field(ge=0)]
Margins = Annotated[tuple[Margin, Margin], BeforeValidator(_both_sides)]


class ConvSettings(Section):
    """A 2-D convolution with a bias.

    Attributes:
      filters: channels of its outputs.
      kernel, stride: of height and width.
      padding: rows and columns of zeros on every side.
    """

    filters: Count
    kernel: Size
    stride: Size = (1, 1)
    padding: Margins = (0, 0)


class MaxPoolSettings(Section):
    """The maximum over windows; the stride is the window's size if it is not given."""

    window: Size
    stride: Annotated[Size, Field(validate_default=True)] = (0, 0)

    @field_validator("stride", mode="before")
    @classmethod
    def _of_the_window(cls, value: Any, info: ValidationInfo) -> Any:
        return info.data.get("window", (1, 1)) if value in (None, (0, 0)) else value


def _window_alone(value: Any) -> Any:
    return value if isinstance(value, dict | MaxPoolSettings) else {"window": value}


def _has_keys(value: Any) -> Any:
    if not isinstance(value, dict | ConvSettings):
        raise PydanticCustomError("conv", "input should be settings, such as {filters: 16, kernel: 3}")
    return value


class ConvLayer(Section):
    """`conv: {filters: 16, kernel: 3}`."""

    conv: Annotated[ConvSettings, BeforeValidator(_has_keys)]


class MaxPoolLayer(Section):
    """`max_pool: 2`, or `max_pool: {window: 2, stride: 1}`."""

    max_pool: Annotated[MaxPoolSettings, BeforeValidator(_window_alone)]


class DenseLayer(Section):
    """`dense: 32`, the number of units. An image is flattened before it."""

    dense: Count


def _kind(value: Any) -> str | None:
    """Which form a layer has; None for one that is none of them."""
    if isinstance(value, str):
        return "activation" if value in get_args(Activation) else None
    keys = list(value) if isinstance(value, dict) else list(getattr(type(value), "model_fields", ()))
    return keys[0] if len(keys) == 1 and keys[0] in ("conv", "max_pool", "dense") else None


LayerConfig = Annotated[
    Annotated[ConvLayer, Tag("conv")]
    | Annotated[MaxPoolLayer, Tag("max_pool")]
    | Annotated[DenseLayer, Tag("dense")]
    | Annotated[Activation, Tag("activation")],
    Discriminator(
        _kind,
        custom_error_type="layer",
        custom_error_message="no such layer; write {conv: {filters: 16, kernel: 3}}, {max_pool: 2}, {dense: 32}, relu "
        "or tanh",
    ),
]


class LayersConfig(Section):
    """Layers from the inputs on; a dense layer to the classes follows the last one by itself."""

    name: Literal["layers"]
    layers: tuple[LayerConfig, ...]

    @field_validator("layers")
    @classmethod
    def _has_layers(cls, layers: tuple[Any, ...]) -> tuple[Any, ...]:
        if not layers:
            raise ValueError("model.layers=[] has no layer; name some, such as model.layers=[{dense:32},tanh]")
        return layers


ModelConfig = Annotated[LinearConfig | MlpConfig | CnnConfig | LayersConfig, Field(discriminator="name")]
