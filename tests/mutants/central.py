"""Bugs in the PyTorch engine, the sampler and the noise."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.core import randomness
from pipelines.core.randomness import public_stream
from pipelines.engines.central import gradients, training, users
from pipelines.engines.central.gradients import KeyedOptimizer, SummedGradients
from pipelines.privacy import sampling
from pipelines.privacy.mechanisms.base import AdaptiveClipping
from tests.mutants import clipping

UNBOUNDED = 1e12


def around_step(change: Callable[[SummedGradients, torch.Tensor], None]) -> Callable[..., None]:
    """Lets `change` see the engine and the sample before each private step."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        real = SummedGradients.step

        def step(self: SummedGradients, sample: torch.Tensor) -> None:
            kept = self.optimizer.noise_multiplier
            change(self, sample)
            real(self, sample)
            self.optimizer.noise_multiplier = kept

        patch.setattr(SummedGradients, "step", step)

    return plant


def _half(engine: SummedGradients, sample: torch.Tensor) -> None:
    engine.optimizer.noise_multiplier /= 2


def _share(engine: SummedGradients, sample: torch.Tensor) -> None:
    # Each of k physical batches brings noise for its k-th part: the sum has 1/sqrt(k) of what it needs.
    engine.optimizer.noise_multiplier /= max(1.0, len(sample) / engine._part) ** 0.5


def _realised(engine: SummedGradients, sample: torch.Tensor) -> None:
    engine.optimizer.expected_batch_size = max(1, len(sample))


half_noise, share_of_noise, realised_normaliser = map(around_step, (_half, _share, _realised))


def half_noise_in_hooks(patch: pytest.MonkeyPatch) -> None:
    real = KeyedOptimizer.add_noise

    def add(self: Any) -> None:
        self.noise_multiplier /= 2
        real(self)
        self.noise_multiplier *= 2

    patch.setattr(KeyedOptimizer, "add_noise", add)


def clipped_with(change: Callable[..., Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """Replaces the clipped sums by `change(real, layers, clip_norm, parameters, inputs, labels)`, without a trial."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        real = gradients.clipped_sums
        patch.setattr(gradients, "clipped_sums", lambda *arguments: change(real, *arguments))
        clipping.untried(patch)

    return plant


def _not(real: Any, layers: Any, clip_norm: float, *batch: Any) -> Any:
    return real(layers, UNBOUNDED, *batch)


def _twice(real: Any, layers: Any, clip_norm: float, *batch: Any) -> Any:
    return real(layers, 2 * clip_norm, *batch)


def _mean(real: Any, layers: Any, clip_norm: float, *batch: Any) -> Any:
    sums, squared = real(layers, UNBOUNDED, *batch)
    mean_norm = float(torch.stack([total.square().sum() for total in sums]).sum().sqrt()) / len(squared)
    return [total * min(1.0, clip_norm / max(mean_norm, 1e-12)) for total in sums], squared


no_clipping, clip_twice, mean_clipped = map(clipped_with, (_not, _twice, _mean))


def noise_with(change: Callable[..., None]) -> Callable[[pytest.MonkeyPatch], None]:
    """Replaces the noise by `change(real, optimizer)`."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        real = KeyedOptimizer.add_noise
        patch.setattr(KeyedOptimizer, "add_noise", lambda self: change(real, self))

    return plant


def _frozen(real: Any, optimizer: Any) -> None:
    optimizer._rng = np.random.default_rng(1)
    real(optimizer)


def _not_on_biases(real: Any, optimizer: Any) -> None:
    real(optimizer)
    last = optimizer.params[-1]
    last.grad = last.summed_grad.clone()


frozen_noise, bare_bias = map(noise_with, (_frozen, _not_on_biases))


def count_noise_times(factor: float) -> Callable[[pytest.MonkeyPatch], None]:
    """Scales the noise on the count that adaptive clipping follows."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        real = gradients.next_clip_norm

        def moved(clip_norm: float, adaptive: AdaptiveClipping, **step: Any) -> float:
            return real(clip_norm, replace(adaptive, count_stddev=factor * adaptive.count_stddev), **step)

        patch.setattr(gradients, "next_clip_norm", moved)

    return plant


half_count_noise, no_count_noise = map(count_noise_times, (0.5, 0.0))


def one_stream(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(randomness, "private_stream", lambda seed, name: public_stream(seed or 0, "everything"))


def constant_streams(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(randomness, "private_stream", lambda seed, name: public_stream(seed or 0, name))


def batch_norm(patch: pytest.MonkeyPatch) -> None:
    real = training.build_module

    def build(spec: Any, *arguments: Any, **options: Any) -> torch.nn.Sequential:
        norm = torch.nn.BatchNorm2d(spec.features[0], affine=False)
        return torch.nn.Sequential(norm, *real(spec, *arguments, **options))

    patch.setattr(training, "build_module", build)


def unclipped_users(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(users, "clipped_update", lambda update, clip_norm: (update, torch.tensor(0.0)))


def weighted_users(patch: pytest.MonkeyPatch) -> None:
    clip, indices, sizes = users.clipped_update, users.UserUpdates._indices, [1]

    def remember(self: users.UserUpdates, order: np.ndarray) -> torch.Tensor:
        sizes[0] = len(order)
        return indices(self, order)

    def weigh(update: list[torch.Tensor], clip_norm: float) -> tuple[list[torch.Tensor], torch.Tensor]:
        clipped, norm = clip(update, clip_norm)
        return [value * sizes[0] for value in clipped], norm

    patch.setattr(users.UserUpdates, "_indices", remember)
    patch.setattr(users, "clipped_update", weigh)


def sampler_with(draw: Callable[..., np.ndarray]) -> Callable[[pytest.MonkeyPatch], None]:
    """Replaces the Poisson sample."""
    return lambda patch: patch.setattr(sampling, "poisson_sample", draw)


class _Shuffle:
    """Batches of a shuffled epoch."""

    def __init__(self) -> None:
        self._left = np.zeros(0, np.int64)

    def __call__(self, units: int, q: float, rng: np.random.Generator) -> np.ndarray:
        size = round(units * q)
        if len(self._left) < size:
            self._left = rng.permutation(units)
        batch, self._left = self._left[:size], self._left[size:]
        return np.sort(batch)


def _fixed(units: int, q: float, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.permutation(units)[: round(units * q)])


def _never_empty(units: int, q: float, rng: np.random.Generator) -> np.ndarray:
    while True:
        sample = np.flatnonzero(rng.random(units) < q)
        if len(sample):
            return sample


def _twice_as_often(units: int, q: float, rng: np.random.Generator) -> np.ndarray:
    return np.flatnonzero(rng.random(units) < 2 * q)


def skipped_empty(patch: pytest.MonkeyPatch) -> None:
    """A step without examples adds no noise."""
    step = gradients.SummedGradients.step
    patch.setattr(gradients.SummedGradients, "step", lambda self, sample: step(self, sample) if len(sample) else None)


def shuffled(patch: pytest.MonkeyPatch) -> None:
    sampler_with(_Shuffle())(patch)


fixed_cohort, never_empty, larger_q = map(sampler_with, (_fixed, _never_empty, _twice_as_often))


def noise_only_with_a_seed(patch: pytest.MonkeyPatch) -> None:
    real = randomness.private_stream

    def stream(noise_seed: int | None, name: str) -> np.random.Generator:
        made = real(noise_seed, name)
        if noise_seed is None and name == "noise":
            made.standard_normal = lambda size=(), dtype=np.float64: np.zeros(size, dtype)  # type: ignore[method-assign, assignment]
        return made

    patch.setattr(randomness, "private_stream", stream)
