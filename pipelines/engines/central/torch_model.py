"""A model spec as a PyTorch module."""

import copy
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pipelines.engines.interface import Inputs, Labels, Logits
from pipelines.model.spec import Conv, Dense, MaxPool, ModelSpec, Relu, Reshape, Tanh, Weights

EVALUATION_BATCH = 1000


class ToChannelsFirst(nn.Module):
    """(n, height, width, channels) to PyTorch's (n, channels, height, width).

    Args:
      contiguous: whether memory is permuted too. PyTorch's kernels are about twice as fast on the view. Opacus unfolds
        the inputs of a convolution by strides that it assumes to be contiguous: on a permuted view, or on the
        channels-last outputs that follow from one, its gradients are wrong and mix examples.
    """

    def __init__(self, *, contiguous: bool) -> None:
        super().__init__()
        self.contiguous = contiguous

    def forward(self, inputs: Tensor) -> Tensor:
        """Permutes the axes."""
        view = inputs.permute(0, 3, 1, 2)
        # With one channel PyTorch takes the view for contiguous, so the copy is explicit.
        return view.clone(memory_format=torch.contiguous_format) if self.contiguous else view


class ReshapeEach(nn.Module):
    """Reshapes each example as if it were channels-last, so that flat features have one order in every engine."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps (n, channels, height, width) or (n, features) to (n, *shape), channels-last."""
        if inputs.dim() == 4:
            inputs = inputs.permute(0, 2, 3, 1)
        return inputs.reshape(inputs.shape[0], *self.shape)


def build_module(spec: ModelSpec, weights: Weights, *, contiguous: bool = False) -> nn.Sequential:
    """Builds the module, inputs (n, *features) channels-last, with the given starting weights.

    Args:
      spec: the architecture.
      weights: in the spec's order and layout.
      contiguous: whether images are copied into channels-first memory, which Opacus' hooks need.
    """
    modules: list[nn.Module] = []
    # Images travel channels-first between convolutions; everything else is flat.
    if len(spec.features) == 3:
        modules.append(ToChannelsFirst(contiguous=contiguous))
    for layer in spec.layers:
        match layer:
            case Conv():
                modules.append(
                    nn.Conv2d(layer.channels_in, layer.filters, layer.kernel, layer.stride, padding=layer.padding)
                )
            case MaxPool():
                modules.append(nn.MaxPool2d(layer.window, layer.stride))
            case Tanh():
                modules.append(nn.Tanh())
            case Relu():
                modules.append(nn.ReLU())
            case Reshape():
                modules.append(ReshapeEach(layer.shape))
                if len(layer.shape) == 3:
                    modules.append(ToChannelsFirst(contiguous=contiguous))
            case Dense():
                modules.append(nn.Linear(layer.units_in, layer.units))
    module = nn.Sequential(*modules)
    load_weights(module, weights)
    return module


def load_weights(module: nn.Module, weights: Weights) -> None:
    """Copies weights in the spec's order and layout into the module."""
    with torch.no_grad():
        for parameter, weight in zip(module.parameters(), to_tensors(weights), strict=True):
            parameter.copy_(weight)


def to_tensors(weights: Weights) -> list[Tensor]:
    """Arrays in the spec's order and layout as tensors in the layout of PyTorch's parameters."""
    return [torch.from_numpy(_to_torch(weight)) for weight in weights]


def read_weights(module: nn.Module) -> Weights:
    """Copies the module's weights out, in the spec's order and layout."""
    return [_from_torch(parameter.detach().cpu().numpy().copy()) for parameter in module.parameters()]


def _to_torch(weight: np.ndarray) -> np.ndarray:
    """Kernels (height, width, in, out) to (out, in, height, width), and (in, out) to (out, in)."""
    axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[weight.ndim]
    return np.ascontiguousarray(weight.transpose(axes))


def _from_torch(weight: np.ndarray) -> np.ndarray:
    axes = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[weight.ndim]
    return np.ascontiguousarray(weight.transpose(axes))


class TorchModel:
    """A module as a FittedModel."""

    framework: Literal["pytorch", "tensorflow"] = "pytorch"

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def logits(self, inputs: Inputs) -> Logits:
        """Maps inputs, float32 (n, *features), to logits, float32 (n, classes)."""
        device = next(self._module.parameters()).device
        with torch.inference_mode():
            batches = torch.from_numpy(np.ascontiguousarray(inputs)).split(EVALUATION_BATCH)
            parts = [self._module(batch.to(device)).cpu() for batch in batches]
        return torch.cat(parts).numpy()

    def weights(self) -> Weights:
        """Returns copies of the weights in the spec's order and layout."""
        return read_weights(self._module)

    def example_gradients(self, weights: Weights, inputs: Inputs, labels: Labels) -> NDArray[np.float64]:
        """Differentiates each example alone, in float64; see `FittedModel`."""
        module = copy.deepcopy(self._module).cpu().double()
        load_weights(module, weights)
        parameters, rows = list(module.parameters()), []
        for example, label in zip(torch.from_numpy(inputs).double(), torch.from_numpy(labels), strict=True):
            gradients = torch.autograd.grad(cross_entropy(module(example[None]), label[None]), parameters)
            rows.append(np.concatenate([_from_torch(gradient.numpy()).ravel() for gradient in gradients]))
        return np.array(rows).reshape(len(inputs), -1)

    def native(self) -> Any:
        """Returns the module, on the CPU."""
        return self._module.cpu()
