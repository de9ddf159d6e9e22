"""The architecture, independent of any framework, and the numpy weights that every pipeline starts from.

Layouts are channels-last: images (n, height, width, channels), convolution kernels (height, width, in, out), dense
kernels (in, out). Each engine converts them to its own layout.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.config.model_settings import Activation, ConvLayer, DenseLayer, LayerConfig, MaxPoolLayer
from pipelines.core.errors import UserError

COPIES = 4
"""Arrays as large as all weights that training holds: the start, the engine's own, gradients, and the update.
"""
Weights = list[NDArray[np.float32]]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Conv:
    """2-D convolution with zero padding `padding` (height, width) on both sides, and a bias."""

    channels_in: int
    filters: int
    kernel: Pair
    stride: Pair
    padding: Pair


@dataclass(frozen=True)
class MaxPool:
    """Maximum over windows of shape `window`, without padding."""

    window: Pair
    stride: Pair = (1, 1)


@dataclass(frozen=True)
class Tanh:
    """Elementwise hyperbolic tangent."""


@dataclass(frozen=True)
class Relu:
    """Elementwise maximum with zero."""


@dataclass(frozen=True)
class Reshape:
    """Reshapes each example, row-major."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class Dense:
    """Affine map of flat features."""

    units_in: int
    units: int


Layer = Conv | MaxPool | Tanh | Relu | Reshape | Dense


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A feed-forward classifier as a sequence of layers.

    Attributes:
      name: linear, mlp, cnn or layers.
      features: shape of one example.
      classes: number of logits.
      layers: from inputs to logits.
    """

    name: str
    features: tuple[int, ...]
    classes: int
    layers: tuple[Layer, ...]

    def weight_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the weights in order: each layer's kernel, then its bias."""
        shapes: list[tuple[int, ...]] = []
        for layer in self.layers:
            match layer:
                case Conv():
                    shapes += [(*layer.kernel, layer.channels_in, layer.filters), (layer.filters,)]
                case Dense():
                    shapes += [(layer.units_in, layer.units), (layer.units,)]
        return shapes

    @property
    def parameters(self) -> int:
        """Number of trainable scalars."""
        return sum(prod(shape) for shape in self.weight_shapes())

    def shaped(self, flat: NDArray[np.float32]) -> Weights:
        """Cuts a flat row of all weights, shape (parameters,), into arrays in order."""
        shapes = self.weight_shapes()
        parts = np.split(flat, np.cumsum([prod(shape) for shape in shapes])[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def build_spec(
    name: Literal["linear", "mlp", "cnn"],
    *,
    features: tuple[int, ...],
    classes: int,
    widths: tuple[int, ...] = (),
    activation: Activation = "tanh",
) -> ModelSpec:
    """Builds the spec of a named model for inputs of a shape.

    Args:
      name: linear (softmax regression), mlp (dense layers of `widths`), cnn (the comparison network of Papernot et al.
        2021, arXiv:2007.14191, table 1: 26,010 parameters on 28 x 28 x 1).
      features: (n_features,) or (height, width, channels).
      classes: number of logits.
      widths: hidden units, mlp only.
      activation: after every layer but the last, mlp and cnn only; theirs is tanh, whose bounded outputs keep gradients
        below the clip norm.

    Raises:
      UserError: the name is unknown.
    """
    active = Relu() if activation == "relu" else Tanh()
    match name:
        case "linear":
            layers = _dense_stack(features, (), classes, Tanh())
        case "mlp":
            layers = _dense_stack(features, widths, classes, active)
        case "cnn":
            layers = _cnn(features, classes, active)
        case _:
            raise UserError(f"model.name={name} is unknown; choose linear, mlp or cnn")
    return ModelSpec(name=name, features=features, classes=classes, layers=layers)


def build_layers(layers: Sequence[LayerConfig], *, features: tuple[int, ...], classes: int) -> ModelSpec:
    """Builds the spec of a list of layers for inputs of a shape, and adds the dense layer to the classes.

    Args:
      layers: as configured; an image is flattened before a dense layer.
      features: (n_features,) or (height, width, channels).
      classes: number of logits.

    Raises:
      UserError: a convolution or a pool that gets no image, or one that is too small for it.
    """
    shape, found = features, list[Layer]()
    for place, layer in enumerate([*layers, DenseLayer(dense=classes)]):
        match layer:
            case "tanh" | "relu":
                found.append(Tanh() if layer == "tanh" else Relu())
            case DenseLayer(dense=units):
                found += [Reshape((prod(shape),))] if len(shape) > 1 else []
                found.append(Dense(prod(shape), units))
                shape = (units,)
            case ConvLayer(conv=conv):
                shape = _windowed(place, "conv", shape, conv.kernel, conv.stride, conv.padding)
                found.append(Conv(shape[2], conv.filters, conv.kernel, conv.stride, conv.padding))
                shape = (*shape[:2], conv.filters)
            case MaxPoolLayer(max_pool=pool):
                shape = _windowed(place, "max_pool", shape, pool.window, pool.stride, (0, 0))
                found.append(MaxPool(pool.window, pool.stride))
    return ModelSpec(name="layers", features=features, classes=classes, layers=tuple(found))


def _windowed(
    place: int, kind: str, shape: tuple[int, ...], window: Pair, stride: Pair, padding: Pair
) -> tuple[int, ...]:
    """The shape that windows over an image leave, with the channels of before.

    Raises:
      UserError: there is no image, or no window fits into it.
    """
    if len(shape) != 3:
        raise UserError(
            f"model.layers.{place}: {kind} needs an image, but gets {shape[0]} features; put it before the first dense "
            "layer, or use dense layers alone where the data has no images"
        )
    sides = tuple(map(positions, shape[:2], window, stride, padding))
    if min(sides) < 1:
        raise UserError(
            f"model.layers.{place}: {kind} with a window of {window[0]} x {window[1]} does not fit its input of "
            f"{shape[0]} x {shape[1]}; make it smaller, or shrink the image less before it"
        )
    return (*sides, shape[2])


def positions(size: int, window: int, stride: int = 1, padding: int = 0) -> int:
    """Returns how many windows fit along one side of an image: the output size of a convolution or a pool."""
    return (size + 2 * padding - window) // stride + 1


def require_memory(spec: ModelSpec, free: int) -> None:
    """Refuses a model that cannot be trained in the memory of this machine.

    Args:
      spec: the architecture.
      free: bytes that are available.

    Raises:
      UserError: `COPIES` of its float32 weights alone take more.
    """
    needed = COPIES * np.dtype(np.float32).itemsize * spec.parameters
    if needed > free:
        key = {"layers": "model.layers", "mlp": "model.widths"}.get(spec.name, f"model={spec.name}")
        raise UserError(
            f"{key} gives {spec.parameters:,} weights for {prod(spec.features):,} features and {spec.classes} classes; "
            f"training them takes at least {needed / 2**30:,.1f} GiB, and {free / 2**30:,.1f} GiB are free here; use "
            "fewer or smaller layers, or fewer features"
        )


def initial_weights(spec: ModelSpec, rng: np.random.Generator) -> Weights:
    """Draws float32 starting weights: Glorot uniform kernels and zero biases; all zeros for a linear model.

    A linear model is convex, so zeros lose nothing. Random weights would cost privacy budget to unlearn.

    Source: Glorot & Bengio 2010, equation 16.
    """
    weights: Weights = []
    for shape in spec.weight_shapes():
        if len(shape) == 1 or spec.name == "linear":
            weights.append(np.zeros(shape, np.float32))
            continue
        receptive = prod(shape[:-2])
        limit = np.sqrt(6 / (receptive * (shape[-2] + shape[-1])))
        weights.append(rng.uniform(-limit, limit, shape).astype(np.float32))
    return weights


def _dense_stack(features: tuple[int, ...], widths: tuple[int, ...], classes: int, active: Layer) -> tuple[Layer, ...]:
    layers: list[Layer] = [] if len(features) == 1 else [Reshape((prod(features),))]
    units_in = prod(features)
    for width in widths:
        layers += [Dense(units_in, width), active]
        units_in = width
    return (*layers, Dense(units_in, classes))


def _cnn(features: tuple[int, ...], classes: int, active: Layer) -> tuple[Layer, ...]:
    """Two convolutions with overlapping pools, then two dense layers.

    Flat features are an image one pixel high, that is a 1-D convolution over them.
    """
    layers: list[Layer] = []
    if len(features) == 1:
        features = (1, features[0], 1)
        layers.append(Reshape(features))
    sides = [_side(size) for size in features[:2]]
    first, second = ([side[0] for side in sides], [side[1] for side in sides])
    window = (sides[0][2], sides[1][2])
    flat = prod(side[3] for side in sides) * 32
    return (
        *layers,
        Conv(features[2], 16, _pair(first, 0), _pair(first, 1), _pair(first, 2)), active, MaxPool(window),
        Conv(16, 32, _pair(second, 0), _pair(second, 1), _pair(second, 2)), active, MaxPool(window),
        Reshape((flat,)), Dense(flat, 32), active, Dense(32, classes),
    )  # fmt: skip


def _pair(sides: list[tuple[int, int, int]], index: int) -> Pair:
    return sides[0][index], sides[1][index]


def _side(size: int) -> tuple[tuple[int, int, int], tuple[int, int, int], int, int]:
    """Kernel, stride and padding of both convolutions, the pool window, and the remaining size of one image side.

    From 14 pixels on this is the published geometry; smaller images get kernels that still fit.
    """
    if size >= 14:
        first, second, pool = (8, 2, 3), (4, 2, 0), 2
    elif size >= 5:
        first, second, pool = (3, 1, 1), (3, 1, 0), 2
    else:
        first, second, pool = (1, 1, 0), (1, 1, 0), 1
    for kernel, stride, padding in (first, second):
        size = positions(positions(size, kernel, stride, padding), pool)
    return first, second, pool, size
