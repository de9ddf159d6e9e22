"""Bugs in the PyTorch engine's noise: on which coordinates, of which law, and how often the same."""

from collections.abc import Callable
from math import pi
from typing import Any

import pytest
import torch
from opacus.optimizers.optimizer import _mark_as_processed
from torch import Tensor

from pipelines.engines.central.gradients import KeyedOptimizer

Plant = Callable[[pytest.MonkeyPatch], None]
Noise = list[Tensor]
CUT_DEVIATION = 0.959  # of a standard normal that is cut at two


def noise_as(change: Callable[[Any, Noise], Noise]) -> Plant:
    """Replaces what a step adds by `change(optimizer, noise)`; sums of nothing show what it would have been."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        real = KeyedOptimizer.add_noise

        def add(self: Any) -> None:
            sums = [parameter.summed_grad for parameter in self.params]
            for parameter, total in zip(self.params, sums, strict=True):
                parameter.summed_grad = torch.zeros_like(total)
            real(self)
            noise = [parameter.grad for parameter in self.params]
            for parameter, total in zip(self.params, sums, strict=True):
                parameter.summed_grad = total
            for parameter, values in zip(self.params, change(self, noise), strict=True):
                parameter.grad = parameter.summed_grad + values
                _mark_as_processed(parameter.summed_grad)

        patch.setattr(KeyedOptimizer, "add_noise", add)

    return plant


def by_tensor(scale: Callable[[int, Tensor, int], float]) -> Plant:
    """Scales the noise of each tensor by `scale(position, noise, tensors)`."""
    return noise_as(
        lambda _, noise: [scale(k, values, len(noise)) * values for k, values in enumerate(noise)],
    )


first_tensor_alone = by_tensor(lambda k, values, tensors: float(k == 0))
last_tensor_alone = by_tensor(lambda k, values, tensors: float(k == tensors - 1))
not_on_biases = by_tensor(lambda k, values, tensors: float(values.dim() > 1))
half_on_convolutions = by_tensor(lambda k, values, tensors: 0.5 if values.dim() == 4 else 1.0)


def _where_touched(optimizer: Any, noise: Noise) -> Noise:
    return [values * (parameter.summed_grad != 0) for parameter, values in zip(optimizer.params, noise, strict=True)]


def _flat(noise: Noise) -> Tensor:
    return torch.cat([values.flatten() for values in noise])


def _shaped(flat: Tensor, noise: Noise) -> Noise:
    parts = flat.split([values.numel() for values in noise])
    return [part.view_as(values) for part, values in zip(parts, noise, strict=True)]


def _history(optimizer: Any) -> list[Noise]:
    """Fresh noise of this run's steps so far."""
    kept: list[Noise] = optimizer.__dict__.setdefault("_mutant_history", [])
    return kept


def repeated_after(lag: int) -> Plant:
    """Of every 2 * lag steps, the second half gets the noise of the first."""

    def change(optimizer: Any, noise: Noise) -> Noise:
        history = _history(optimizer)
        history.append(noise)
        step = len(history) - 1
        return history[step - lag] if step % (2 * lag) >= lag else noise

    return noise_as(change)


def _pool_of_eight(optimizer: Any, noise: Noise) -> Noise:
    history = _history(optimizer)
    if len(history) < 8:
        history.append(noise)
        return noise
    return history[int(1e6 * _flat(noise)[0].abs() / _flat(noise).std()) % 8]


def _tiled(optimizer: Any, noise: Noise) -> Noise:
    halves = []
    for values in noise:
        flat, half = values.flatten().clone(), values.numel() // 2
        flat[half : 2 * half] = flat[:half]
        halves.append(flat.view_as(values))
    return halves


def _flipped(optimizer: Any, noise: Noise) -> Noise:
    history = _history(optimizer)
    history.append(noise)
    sign = 1.0 if float(noise[0].flatten()[0]) > 0 else -1.0
    return [sign * values for values in history[0]]


def _shared_by_tensors(optimizer: Any, noise: Noise) -> Noise:
    longest = max(noise, key=torch.numel).flatten()
    return [longest[: values.numel()].view_as(values) for values in noise]


def _mirrored(optimizer: Any, noise: Noise) -> Noise:
    """Every second step takes the noise before off again."""
    history = _history(optimizer)
    history.append(noise)
    return noise if len(history) % 2 else [-values for values in history[-2]]


touched_alone, pool_of_eight, tiled, flipped, shared_by_tensors, mirrored = map(
    noise_as, (_where_touched, _pool_of_eight, _tiled, _flipped, _shared_by_tensors, _mirrored)
)


def of_law(transform: Callable[[Tensor], Tensor]) -> Plant:
    """Turns each coordinate, standard normal, into one of another law with the same variance."""

    def change(optimizer: Any, noise: Noise) -> Noise:
        scale = optimizer.noise_multiplier * optimizer.max_grad_norm
        return [scale * transform(values / scale) for values in noise]

    return noise_as(change)


def _uniform(values: Tensor) -> Tensor:
    return 12**0.5 * (torch.special.ndtr(values) - 0.5)


def _laplace(values: Tensor) -> Tensor:
    tail = torch.special.ndtr(-values.double().abs())
    return (-(2 * tail).log() / 2**0.5).float() * values.sign()


def _cut(values: Tensor) -> Tensor:
    """As normal noise of few bits would be."""
    return values.clamp(-2, 2) / CUT_DEVIATION


def _cosine(values: Tensor) -> Tensor:
    """Box-Muller without its radius: bounded by the square root of two."""
    return 2**0.5 * torch.cos(2 * pi * torch.special.ndtr(values))


def _signs(values: Tensor) -> Tensor:
    return values.sign()


uniform, coin_toss, laplace, truncated, cosine = map(of_law, (_uniform, _signs, _laplace, _cut, _cosine))


def _of_the_step(optimizer: Any, noise: Noise) -> Noise:
    """The same in every run of the program."""
    history = _history(optimizer)
    history.append([])
    stream = torch.Generator().manual_seed(len(history))
    scale = optimizer.noise_multiplier * optimizer.max_grad_norm
    return [scale * torch.randn(values.shape, generator=stream) for values in noise]


def _at_the_first_clip_norm(optimizer: Any, noise: Noise) -> Noise:
    first = optimizer.__dict__.setdefault("_mutant_clip_norm", optimizer.max_grad_norm)
    return [values * (first / optimizer.max_grad_norm) for values in noise]


of_the_step, at_the_first_clip_norm = map(noise_as, (_of_the_step, _at_the_first_clip_norm))


def last_tensor(change: Callable[[Any, Tensor], Tensor]) -> Plant:
    """Changes the noise of the last bias alone, by `change(optimizer, noise)`."""
    return noise_as(lambda optimizer, noise: [*noise[:-1], change(optimizer, noise[-1])])


def _in_two_steps(optimizer: Any, noise: Tensor) -> Tensor:
    kept = getattr(optimizer, "kept", None)
    optimizer.kept = noise if kept is None else None
    return noise if kept is None else kept


last_bias_tossed = last_tensor(
    lambda optimizer, noise: noise.sign() * optimizer.noise_multiplier * optimizer.max_grad_norm
)
last_bias_in_two_steps = last_tensor(_in_two_steps)
last_bias_in_common = last_tensor(lambda optimizer, noise: noise[:1].expand_as(noise).clone())
