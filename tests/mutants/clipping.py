"""Bugs in how the PyTorch engine bounds what one unit adds: which tensors, whose factor, in which code.

Book-keeping and kernels train untried here, so that the audit has to find them; `wrong_book_keeping` is for the trial.
"""

import atexit
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers.optimizer import _mark_as_processed
from torch import Tensor

from pipelines.engines.central import book_keeping, compiled, gradients, training, users
from pipelines.engines.central.book_keeping import ConvGradients, DenseGradients
from pipelines.engines.central.gradients import KeyedOptimizer

Plant = Callable[[pytest.MonkeyPatch], None]
UNBOUNDED = 1e12
GUARD = 1e-6


def untried(patch: pytest.MonkeyPatch) -> None:
    """Lets any way to clipped sums train."""
    for module in (gradients, compiled):
        patch.setattr(module, "require_sound", lambda *_: None)


def factors(squared: Tensor, clip_norm: float) -> Tensor:
    """The right ones, given the right squared norms."""
    return (clip_norm / (squared.sqrt() + GUARD)).clamp(max=1)


def scaled_with(change: Callable[[Tensor, float], Tensor]) -> Plant:
    """Replaces the factors of book-keeping.

    Args:
      change: maps squared norms by tensor (tensors, n) and the clip norm to factors by tensor (tensors, n).
    """

    def plant(patch: pytest.MonkeyPatch) -> None:
        real, make = gradients.clipped_sums, book_keeping.layer_gradients
        found: list[Any] = []

        def keep(*arguments: Any) -> Any:
            found.insert(0, make(*arguments))
            return found[0]

        def sums(layers: Any, clip_norm: float, *batch: Any) -> Any:
            found.clear()
            squared = real(layers, UNBOUNDED, *batch)[1]
            by_tensor = torch.cat([_by_tensor(each) for each in found])
            scales = change(by_tensor, clip_norm)
            parts = [each.weighted_sum(scales[2 * k + j])[j] for k, each in enumerate(found) for j in (0, 1)]
            return parts, squared

        patch.setattr(book_keeping, "layer_gradients", keep)
        patch.setattr(gradients, "clipped_sums", sums)
        untried(patch)

    return plant


def _by_tensor(layer: Any) -> Tensor:
    """Squared norms of a layer's kernel and bias, (2, n)."""
    if isinstance(layer, ConvGradients):
        bias = layer.biases
    else:
        bias = layer.outputs if layer.outputs.dim() == 2 else layer.outputs.sum(1)
    squared = bias.square().sum(1)
    return torch.stack([(layer.squared_norms - squared).clamp(min=0), squared])


def _each_tensor(squared: Tensor, clip_norm: float) -> Tensor:
    return factors(squared, clip_norm)


def _each_layer(squared: Tensor, clip_norm: float) -> Tensor:
    return factors(squared[::2] + squared[1::2], clip_norm).repeat_interleave(2, 0)


def _next_example(squared: Tensor, clip_norm: float) -> Tensor:
    return factors(squared.sum(0), clip_norm).roll(1).expand_as(squared)


def _without_biases(squared: Tensor, clip_norm: float) -> Tensor:
    return factors(squared[::2].sum(0), clip_norm).expand_as(squared)


def _last_layer(squared: Tensor, clip_norm: float) -> Tensor:
    return factors(squared[-2:].sum(0), clip_norm).expand_as(squared)


class _Stale:
    """Factors of the sample before, one after the other."""

    def __init__(self) -> None:
        self._before = torch.ones(1)

    def __call__(self, squared: Tensor, clip_norm: float) -> Tensor:
        now = factors(squared.sum(0), clip_norm)
        used = self._before[torch.arange(len(now)) % len(self._before)]
        self._before = now
        return used.expand_as(squared)


tensors_apart, layers_apart, next_factor, without_biases, last_layer = map(
    scaled_with, (_each_tensor, _each_layer, _next_example, _without_biases, _last_layer)
)


def stale_factors(patch: pytest.MonkeyPatch) -> None:
    scaled_with(_Stale())(patch)


def tensors_apart_in_hooks(patch: pytest.MonkeyPatch) -> None:
    """For Opacus' hooks and functorch."""

    def clip(self: Any) -> None:
        for parameter in self.params:
            own = self._get_flat_grad_sample(parameter)
            scale = (self.max_grad_norm / (own.flatten(1).norm(dim=1) + GUARD)).clamp(max=1)
            total = torch.einsum("i,i...", scale, own)
            parameter.summed_grad = total if parameter.summed_grad is None else parameter.summed_grad + total
            _mark_as_processed(parameter.grad_sample)

    patch.setattr(KeyedOptimizer, "clip_and_accumulate", clip)


def ghost_without_biases(patch: pytest.MonkeyPatch) -> None:
    def norms(self: Any) -> Tensor:
        kernels = [parameter._norm_sample for parameter in self.trainable_parameters if parameter.dim() > 1]
        self.per_sample_gradient_norms = torch.stack(kernels).norm(2, dim=0)
        return self.per_sample_gradient_norms

    patch.setattr(GradSampleModuleFastGradientClipping, "get_norm_sample", norms)


def users_tensors_apart(patch: pytest.MonkeyPatch) -> None:
    def clip(update: list[Tensor], clip_norm: float) -> tuple[list[Tensor], Tensor]:
        norms = [torch.linalg.vector_norm(value) for value in update]
        cut = [value * (clip_norm / norm.clamp(min=clip_norm)) for value, norm in zip(update, norms, strict=True)]
        return cut, torch.stack(norms).norm()

    patch.setattr(users, "clipped_update", clip)


def users_batch_by_batch(patch: pytest.MonkeyPatch) -> None:
    """Each example's part of a user's update has the bound that the whole should have."""
    real, clip = users.UserUpdates._mean_gradient, users.clipped_update

    def parts(self: users.UserUpdates, examples: Tensor) -> list[Tensor]:
        each = [clip(real(self, one), self.optimizer.max_grad_norm)[0] for one in examples.split(1)]
        return [torch.stack(values).sum(0) for values in zip(*each, strict=True)]

    patch.setattr(users.UserUpdates, "_mean_gradient", parts)
    patch.setattr(users, "clipped_update", lambda update, clip_norm: (update, torch.tensor(0.0)))


def two_updates_a_step(patch: pytest.MonkeyPatch) -> None:
    """Each with noise of its own; one is accounted for."""
    real = gradients.SummedGradients.step

    def step(self: gradients.SummedGradients, sample: Tensor) -> None:
        real(self, sample)
        real(self, sample)

    patch.setattr(gradients.SummedGradients, "step", step)


def wrong_kernel(right: str, wrong: str, *, tried: bool = False) -> Plant:
    """Compiles another line in the place of one of the kernel's, into a cache of its own."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        folder = Path(tempfile.mkdtemp())
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        texts = {source.name: source.read_text() for source in compiled.SOURCES}
        assert sum(text.count(right) for text in texts.values()) == 1
        for name, text in texts.items():
            (folder / name).write_text(text.replace(right, wrong))
        patch.setattr(compiled, "SOURCES", tuple(folder / name for name in texts))
        patch.setenv("PIPELINES_CACHE", str(folder / "cache"))
        if not tried:
            untried(patch)

    return plant


kernel_without_dense_bias = wrong_kernel("(dot(in, in, IN) + 1) * outputs", "dot(in, in, IN) * outputs")
kernel_without_conv_bias = wrong_kernel("dot(gradient, gradient, WEIGHTS)", "dot(gradient, gradient, TAPS * F)")
kernel_with_stale_factor = wrong_kernel(
    "const float factor = std::min(1.f, clip_norm / (std::sqrt(squared) + 1e-6f));",
    "static thread_local float last = 1.f; const float factor = last; "
    "last = std::min(1.f, clip_norm / (std::sqrt(squared) + 1e-6f));",
)
kernel_layer_by_layer = wrong_kernel(
    "node<k>().layer.add(factor, input<k>(example), node<k>().slope, sum + offset(k));",
    "node<k>().layer.add(std::min(1.f, clip_norm / (std::sqrt(node<k>().layer.squared(input<k>(example), "
    "node<k>().slope)) + 1e-6f)), input<k>(example), node<k>().slope, sum + offset(k));",
)


def wrong_dense(patch: pytest.MonkeyPatch) -> None:
    """Norms of dense layers without their biases."""
    squares = property(lambda self: self.inputs.square().sum(1) * self.outputs.square().sum(1))
    patch.setattr(DenseGradients, "squared_norms", squares)


def wrong_conv(patch: pytest.MonkeyPatch) -> None:
    """Norms of convolutions without their biases."""
    patch.setattr(gradients, "compiled_sums", lambda *_: None)
    patch.setattr(ConvGradients, "squared_norms", property(lambda self: self.kernels.flatten(1).square().sum(1)))
    patch.setattr(
        book_keeping.GhostConvGradients, "squared_norms",
        property(lambda self: ((self.patches @ self.patches.mT) * (self.outputs @ self.outputs.mT)).sum((1, 2))),
    )  # fmt: skip


def wrong_dense_untried(patch: pytest.MonkeyPatch) -> None:
    wrong_dense(patch)
    untried(patch)


def wrong_conv_untried(patch: pytest.MonkeyPatch) -> None:
    wrong_conv(patch)
    untried(patch)


class _OverTheBatch(torch.nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs / len(inputs)


def over_the_batch(patch: pytest.MonkeyPatch) -> None:
    """A layer that no list knows."""
    real = training.build_module
    patch.setattr(
        training, "build_module", lambda *given, **named: torch.nn.Sequential(_OverTheBatch(), *real(*given, **named))
    )


def large_samples_unclipped(patch: pytest.MonkeyPatch) -> None:
    """From the 65th example of a part on."""

    def change(by_tensor: Tensor, clip_norm: float) -> Tensor:
        found = factors(by_tensor.sum(0), clip_norm)
        found[64:] = 1
        return found.expand_as(by_tensor)

    scaled_with(change)(patch)
    untried(patch)
