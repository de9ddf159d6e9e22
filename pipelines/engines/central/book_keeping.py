"""Clipped sums of per-example gradients from one forward and one backward pass, without a gradient per example.

The forward pass keeps every layer's input, and the backward pass gives the gradient at every layer's output. These two
give each example's gradient norm, and then the clipped sum. For a dense layer this is a closed form, since its gradient
for one example has rank one. For a convolution it uses the example's gradient or Gram matrices over positions: the way
that takes less arithmetic. There is no autograd: the few layers of a `ModelSpec` are written out. Tensors are
channels-last throughout, as in the spec; PyTorch's CPU kernels are fastest with these.

Source: Bu et al. 2023, arXiv:2210.00038, algorithm 1 (book-keeping), and Bu et al. 2022, arXiv:2205.10683, section 4
(mixed ghost norms).
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import conv2d, linear, one_hot, pad

from pipelines.model.spec import Conv, Dense, Layer, MaxPool, ModelSpec, Relu, Reshape, Tanh, positions

ROUNDING = 1e-6  # bound on the relative error of a float32 sum of products


class LayerGradients(Protocol):
    """The per-example gradients of one layer with weights."""

    @property
    def squared_norms(self) -> Tensor:
        """Squared L2 norm of each example's gradient over kernel and bias, (n,)."""

    def weighted_sum(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Sum over examples of weights (n,) times gradients, in PyTorch's shapes of kernel and bias."""


@dataclass(frozen=True)
class DenseGradients:
    """A dense layer's gradients: the outer product of output gradients (n, out) and inputs (n, in)."""

    inputs: Tensor
    outputs: Tensor

    @property
    def squared_norms(self) -> Tensor:
        """(|x|^2 + 1) |g|^2; the one is the bias."""
        # Roots first: the square of a small |g| would vanish beside a large |x|.
        return ((_squares(self.inputs) + 1).sqrt() * torch.linalg.vector_norm(self.outputs, dim=1)).square()

    def weighted_sum(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """One matrix product, as in plain training."""
        outputs = self.outputs * weights[:, None]
        return outputs.T @ self.inputs, outputs.sum(0)


@dataclass(frozen=True)
class ConvGradients:
    """A convolution's gradient for each example: kernels (n, out, height * width * in) and biases (n, out)."""

    kernels: Tensor
    biases: Tensor
    layer: Conv

    @property
    def squared_norms(self) -> Tensor:
        """Computed from the gradients themselves."""
        return _squares(self.kernels.flatten(1)) + _squares(self.biases)

    def weighted_sum(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """A matrix-vector product."""
        return _as_kernel(weights @ self.kernels.flatten(1), self.layer), weights @ self.biases


@dataclass(frozen=True)
class GhostConvGradients:
    """A convolution's gradients, never formed: patches (n, positions, height * width * in) and output gradients."""

    patches: Tensor
    outputs: Tensor
    layer: Conv

    @property
    def squared_norms(self) -> Tensor:
        """Squared norm of each gradient, (n,), weights and bias together.

        It sums, over all pairs of positions, the product of patches plus one for the bias, times the product of output
        gradients. A bound on the rounding error is added, since terms can cancel.
        """
        terms = (self.patches @ self.patches.mT + 1) * (self.outputs @ self.outputs.mT)
        return (terms.sum((1, 2)) + ROUNDING * terms.abs().sum((1, 2))).clamp(min=0)

    def weighted_sum(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """One matrix product over examples and positions."""
        outputs = (self.outputs * weights[:, None, None]).flatten(0, 1)
        return _as_kernel(outputs.T @ self.patches.flatten(0, 1), self.layer), outputs.sum(0)


def supports(spec: ModelSpec) -> bool:
    """Whether book-keeping knows every layer of a model."""
    return all(isinstance(layer, Conv | MaxPool | Tanh | Relu | Reshape | Dense) for layer in spec.layers)


def clipped_sums(
    layers: tuple[Layer, ...], clip_norm: float, parameters: list[Tensor], inputs: Tensor, labels: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Clips each example's cross-entropy gradient to an L2 norm and sums.

    Args:
      layers: of the spec, from inputs to logits.
      clip_norm: bound on one example's gradient over all layers, > 0.
      parameters: kernel and bias of each layer that has them, in PyTorch's shapes.
      inputs: (n, *features), n > 0.
      labels: int64, (n,).

    Returns:
      The sums in the shapes of the parameters, and squared norms (n,). If a norm is not finite, the sums are invalid:
      the caller leaves that example out and calls again.
    """
    own = _by_layer(layers, parameters)
    tape, values = [], inputs
    for layer, weights in zip(layers, own, strict=True):
        outputs, saved = _forward(layer, weights, values)
        tape.append((values, outputs, saved))
        values = outputs
    gradient = torch.softmax(values, 1) - one_hot(labels, values.shape[1])
    found: list[LayerGradients] = []
    first = min(k for k, weights in enumerate(own) if weights)
    for k in range(len(layers) - 1, first - 1, -1):
        values, outputs, saved = tape[k]
        if own[k]:
            found.insert(0, layer_gradients(layers[k], values, gradient))
        if k > first:
            gradient = _backward(layers[k], own[k], values, outputs, saved, gradient)
    squared = torch.stack([each.squared_norms for each in found]).sum(0)
    # Opacus' own clipping factor, with its guard against dividing by zero.
    factors = (clip_norm / (squared.sqrt() + 1e-6)).clamp(max=1)
    return [total for each in found for total in each.weighted_sum(factors)], squared


def _by_layer(layers: tuple[Layer, ...], parameters: list[Tensor]) -> list[tuple[Tensor, ...]]:
    rest = iter(parameters)
    return [(next(rest), next(rest)) if isinstance(layer, Conv | Dense) else () for layer in layers]


def _forward(layer: Layer, weights: tuple[Tensor, ...], inputs: Tensor) -> tuple[Tensor, Tensor | None]:
    """Returns a layer's outputs, and what its backward pass needs besides outputs and inputs."""
    match layer:
        case Conv():
            kernel, bias = weights
            outputs = conv2d(_channels_first(inputs), kernel, bias, layer.stride, layer.padding)
            return _channels_last(outputs), None
        case MaxPool():
            return _pool(inputs, layer)
        case Tanh():
            return inputs.tanh(), None
        case Relu():
            return inputs.relu(), None
        case Reshape():
            return inputs.reshape(-1, *layer.shape), None
        case Dense():
            return linear(inputs, *weights), None


def _backward(
    layer: Layer, weights: tuple[Tensor, ...], inputs: Tensor, outputs: Tensor, saved: Tensor | None, gradient: Tensor
) -> Tensor:
    """Maps the gradient at a layer's outputs to the one at its inputs."""
    match layer:
        case Conv():
            return _channels_last(
                torch.ops.aten.convolution_backward(
                    _channels_first(gradient), _channels_first(inputs), weights[0], None, layer.stride, layer.padding,
                    (1, 1), False, (0, 0), 1, (True, False, False),
                )[0]
            )  # fmt: skip
        case MaxPool():
            assert saved is not None
            return _pool_backward(gradient, inputs, saved, layer)
        case Tanh():
            return torch.ops.aten.tanh_backward(gradient, outputs)
        case Relu():
            return torch.ops.aten.threshold_backward(gradient, outputs, 0)
        case Reshape():
            return gradient.reshape(inputs.shape)
        case Dense():
            return gradient @ weights[0]


def layer_gradients(layer: Layer, inputs: Tensor, outputs: Tensor) -> LayerGradients:
    """Picks the way to the norms with fewer multiplications, from inputs and gradients at outputs (n, ...)."""
    if not isinstance(layer, Conv):
        return DenseGradients(inputs, outputs)
    patches, outputs = _patches(inputs, layer), outputs.flatten(1, 2)
    positions, fan_in, filters = patches.shape[1], patches.shape[2], outputs.shape[2]
    if positions**2 * (fan_in + filters) < 2 * fan_in * filters:
        return GhostConvGradients(patches, outputs, layer)
    return ConvGradients(outputs.mT @ patches, outputs.sum(1), layer)


def _patches(inputs: Tensor, layer: Conv) -> Tensor:
    """What each output position of a convolution sees, (n, positions, fan-in) in the order of `_as_kernel`."""
    (height, width), (down, right), (rows, columns) = layer.kernel, layer.stride, layer.padding
    n, tall, wide = inputs.shape[0], inputs.shape[1] + 2 * rows, inputs.shape[2] + 2 * columns
    if not _by_phase(layer):
        windows = pad(inputs, (0, 0, columns, columns, rows, rows)).unfold(1, height, down).unfold(2, width, right)
        return windows.permute(0, 1, 2, 4, 5, 3).reshape(n, -1, height * width * layer.channels_in)
    # With one channel, windows are short runs to copy. Split by the phases of the stride, an image gives whole rows.
    below, beside = -tall % down, -wide % right
    padded = pad(inputs.squeeze(3), (columns, columns + beside, rows, rows + below))
    grid = padded.view(n, (tall + below) // down, down, (wide + beside) // right, right).permute(0, 2, 4, 1, 3)
    size = positions(tall, height, down), positions(wide, width, right)
    windows = grid.contiguous().unfold(3, size[0], 1).unfold(4, size[1], 1)
    windows = windows[:, :, :, : height // down, : width // right]
    return windows.reshape(n, height * width, -1).mT


def _as_kernel(flat: Tensor, layer: Conv) -> Tensor:
    """Flat kernels, in the order of `_patches`, to (out, in, height, width)."""
    if not _by_phase(layer):
        return flat.view(layer.filters, *layer.kernel, layer.channels_in).permute(0, 3, 1, 2)
    (height, width), (down, right) = layer.kernel, layer.stride
    phases = flat.view(layer.filters, down, right, height // down, width // right)
    return phases.permute(0, 3, 1, 4, 2).reshape(layer.filters, 1, height, width)


def _by_phase(layer: Conv) -> bool:
    whole = all(size % step == 0 for size, step in zip(layer.kernel, layer.stride, strict=True))
    return layer.channels_in == 1 and whole


def _pool(inputs: Tensor, layer: MaxPool) -> tuple[Tensor, Tensor]:
    """Returns the maxima over windows, and their places."""
    outputs, places = torch.ops.aten.max_pool2d_with_indices(_channels_first(inputs), layer.window, layer.stride)
    return _channels_last(outputs), places


def _pool_backward(gradient: Tensor, inputs: Tensor, places: Tensor, layer: MaxPool) -> Tensor:
    return _channels_last(
        torch.ops.aten.max_pool2d_with_indices_backward(
            _channels_first(gradient),
            _channels_first(inputs),
            layer.window,
            layer.stride,
            (0, 0),
            (1, 1),
            False,
            places,
        )
    )


def _channels_first(tensor: Tensor) -> Tensor:
    return tensor.permute(0, 3, 1, 2)


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.permute(0, 2, 3, 1)


def _squares(tensor: Tensor) -> Tensor:
    """Squared L2 norms of rows; (n, m) to (n,)."""
    return torch.linalg.vector_norm(tensor, dim=1).square()
