"""Ways to compute a private step: each gives clipped sums of per-example gradients to one of Opacus' optimizers.

All ways give the same sums up to float error. All leave out an example whose gradient is not finite: clipping cannot
bound it, and it must not affect the other examples. The ways without a gradient for each example also leave out an
example whose squared norm overflows.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any, Literal, Protocol

import numpy as np
import torch
from opacus import GradSampleModule
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.optimizers.optimizer import _check_processed_flag, _mark_as_processed
from torch import Tensor
from torch.nn.functional import cross_entropy

from pipelines.config.pipeline_settings import DpSgdConfig
from pipelines.engines.central.book_keeping import clipped_sums
from pipelines.engines.central.compiled import compiled_sums
from pipelines.engines.central.gradient_trial import require_sound
from pipelines.engines.central.training import TrainState, build_optimizer
from pipelines.model.spec import Conv, ModelSpec
from pipelines.privacy.clipping import next_clip_norm
from pipelines.privacy.mechanisms.banded_noise import CorrelatedNoise
from pipelines.privacy.mechanisms.base import Mechanism
from pipelines.privacy.noise_grid import noise_grid

Mode = Literal["book_keeping", "hooks", "ghost", "functorch"]

# On a CPU a part should stay in cache. A convolution unfolds its inputs to many times their size: 128 examples of the
# comparison network were the fastest measured; without convolutions the inputs themselves are the largest tensor.
CONV_PART, PART_BYTES = 128, 8 * 2**20
ONE_CALL = 2**16
"""Weights of a model whose noise is made in one call for all of its tensors."""


class PrivateGradients(Protocol):
    """One way to compute private steps.

    Attributes:
      optimizer: takes the steps; its `max_grad_norm` is the clip norm of the next step.
      facts: facts about the way, for the log.
    """

    optimizer: "KeyedOptimizer"
    facts: dict[str, str]

    def step(self, sample: Tensor) -> None:
        """Updates the weights from one Poisson sample, indices (n,) with n >= 0; noise is added once."""

    def close(self) -> None:
        """Takes the hooks off the module."""


def private_gradients(
    mode: Mode,
    state: TrainState,
    spec: ModelSpec,
    settings: DpSgdConfig,
    plan: Mechanism,
    rng: np.random.Generator,
) -> PrivateGradients:
    """Builds the way that a mode names.

    Args:
      mode: book_keeping is ours; the others are Opacus' and need the module in contiguous layout.
      state: model and data.
      spec: the model's architecture.
      settings: the optimizer, and the maximum number of examples in memory at once.
      plan: clip norm, noise and expected batch size.
      rng: the run's private stream of noise.

    Raises:
      TrialError: the mode is book_keeping, and its sums differ from autograd's.
    """
    if mode in ("hooks", "functorch"):
        return PerExampleGradients(state, settings, plan, rng, force_functorch=mode == "functorch")
    optimizer = SumOptimizer(build_optimizer(state.module, settings), plan=plan, rng=rng)
    part = settings.max_physical_batch
    if mode == "ghost":
        return SummedGradients(GhostClipping(state), part, state, optimizer)
    if (compiled := compiled_sums(state, spec)) is not None:
        return SummedGradients(compiled, len(state.labels), state, optimizer)  # one example in memory at once
    require_sound(lambda trial: BookKeeping(trial, spec), state, spec)
    if state.device.type == "cpu":
        convolves = any(isinstance(layer, Conv) for layer in spec.layers)
        part = min(part, CONV_PART if convolves else max(1, PART_BYTES // state.inputs[0].nbytes))
    return SummedGradients(BookKeeping(state, spec), part, state, optimizer)


class KeyedOptimizer(DPOptimizer):
    """Opacus' optimizer with noise from the run's private stream, which is a cipher.

    PyTorch's CPU generator keeps 32 bits of its seed: an attacker who tries them all could remove a model's noise.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, plan: Mechanism, rng: np.random.Generator) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=plan.update_noise_multiplier,
            max_grad_norm=plan.clip_norm,
            expected_batch_size=plan.expected_batch_size,
        )
        self.adaptive = plan.adaptive
        self._rng, self._correlated = rng, CorrelatedNoise(plan.coefficients)
        # The tensors of a small model get their noise together, since a call costs more than its draws.
        sizes = [parameter.numel() for parameter in self.params]
        together = sum(sizes) <= ONE_CALL
        self._groups = (
            [(self.params, sizes)] if together else [([p], [k]) for p, k in zip(self.params, sizes, strict=True)]
        )

    @property
    def dp_event(self) -> Any:
        """What a step releases, as a `dp_accounting.DpEvent` without its sampling.

        It follows from the noise multiplier in use and the length of a column of C, not from the draws.
        """
        from dp_accounting import dp_event as events

        update = events.GaussianDpEvent(self.noise_multiplier / self._correlated.column_length)
        if self.adaptive is None:
            return update
        return events.ComposedDpEvent([update, events.GaussianDpEvent(2 * self.adaptive.count_stddev)])

    def add_noise(self) -> None:
        """Adds the step's noise to every coordinate of the clipped sums, on a grid.

        It is N(0, (noise_multiplier * max_grad_norm)^2), or a row of C^-1 times that. The noised sum is rounded, while
        the memory of C^-1 keeps the noise as it was drawn: so each release is a rounding of what the mechanism would
        release in exact arithmetic, and tells no more. Given all former steps, its noise is a fresh draw over c_0 <= 1,
        for which the grid of a draw is fine enough.
        """
        stddev = self.noise_multiplier * self.max_grad_norm
        draws = [
            torch.from_numpy(self._rng.standard_normal(sum(sizes))).to(group[0].device) for group, sizes in self._groups
        ]
        for (group, sizes), noise in zip(self._groups, self._correlated.next(draws), strict=True):
            for parameter in group:
                _check_processed_flag(parameter.summed_grad)
            flat = [parameter.summed_grad.flatten() for parameter in group]
            sums = flat[0] if len(flat) == 1 else torch.cat(flat)  # cat would copy a large tensor for nothing
            for parameter, part in zip(group, noised(sums, noise, stddev).split(sizes), strict=True):
                parameter.grad = part.view_as(parameter)
                _mark_as_processed(parameter.summed_grad)


class SumOptimizer(KeyedOptimizer, DPOptimizerFastGradientClipping):
    """The same optimizer for sums that are already clipped, to the current `max_grad_norm`."""

    max_grad_norm: float

    def accumulate(self) -> None:
        """Takes the sums as they are: `release` brings them once a step, and Opacus would copy them one by one."""
        for parameter in self.params:
            parameter.summed_grad = parameter.grad

    def release(self, sums: list[Tensor], *, units: int, clipped: int) -> None:
        """Takes a step with noised sums, then moves the clip norm if it follows a quantile.

        Args:
          sums: sums of the clipped contributions, in the shapes of the parameters.
          units: number of units that contributed, zeros included.
          clipped: number of units whose norm exceeded `max_grad_norm`; not read if the clip norm is fixed.
        """
        for parameter, total in zip(self.params, sums, strict=True):
            parameter.grad = total
        self.step()
        self.zero_grad(set_to_none=True)
        if self.adaptive is not None:
            self.max_grad_norm = next_clip_norm(
                self.max_grad_norm, self.adaptive, units=units, clipped=clipped,
                expected_batch_size=self.expected_batch_size, rng=self._rng,
            )  # fmt: skip


class PerExampleGradients:
    """Opacus' default: a gradient for each example, by its hooks or by torch.func."""

    def __init__(
        self,
        state: TrainState,
        settings: DpSgdConfig,
        plan: Mechanism,
        rng: np.random.Generator,
        *,
        force_functorch: bool,
    ) -> None:
        self._state, self._part = state, settings.max_physical_batch
        self.facts = {"grad_sample": "functorch" if force_functorch else "hooks"}
        self._module = GradSampleModule(state.module, loss_reduction="sum", force_functorch=force_functorch)
        self.optimizer: KeyedOptimizer = KeyedOptimizer(build_optimizer(state.module, settings), plan=plan, rng=rng)

    def step(self, sample: Tensor) -> None:
        """Clipped sums accumulate over physical batches, and noise is added with the last."""
        parts = sample.split(self._part) if len(sample) else (sample,)
        for k, part in enumerate(parts):
            self.optimizer.signal_skip_step(do_skip=k < len(parts) - 1)
            if len(part):
                self._backward(part)
            else:
                # An empty sample is a step of pure noise.
                for parameter in self._module.parameters():
                    parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))
            self.optimizer.step()
            self.optimizer.zero_grad()

    def close(self) -> None:
        """Takes the hooks off the module."""
        self._module.remove_hooks()

    def _backward(self, part: Tensor) -> None:
        """Leaves each parameter's per-example gradients, (n, *shape), in its `grad_sample`."""
        with _quiet_hooks():
            cross_entropy(self._module(self._state.inputs[part]), self._state.labels[part], reduction="sum").backward()
        parameters = list(self._module.parameters())
        # The sum is a quick test: if it is finite, all gradients are.
        if all(torch.isfinite(parameter.grad_sample.sum()) for parameter in parameters):
            return
        finite = torch.stack([torch.isfinite(p.grad_sample).flatten(1).all(1) for p in parameters]).all(0)
        for parameter in parameters:
            parameter.grad_sample[~finite] = 0


class ClippedSums(Protocol):
    """One way to compute clipped sums without keeping a gradient for each example.

    Attributes:
      facts: facts about the way, for the log.
    """

    facts: dict[str, str]

    def __call__(self, sample: Tensor, clip_norm: float) -> tuple[list[Tensor], Tensor]:
        """Returns the clipped sums over a sample, and its squared norms (n,).

        If a norm is not finite, the caller leaves that example out and calls again.
        """

    def close(self) -> None:
        """Takes the hooks, if there are any, off the module."""


class SummedGradients:
    """Private steps from a `ClippedSums`, without a gradient for each example."""

    def __init__(self, clip: ClippedSums, part: int, state: TrainState, optimizer: SumOptimizer) -> None:
        self._clip, self._part, self._state, self.optimizer = clip, part, state, optimizer
        self.facts = clip.facts

    def step(self, sample: Tensor) -> None:
        """Adds the parts' sums, and gives them to the optimizer at once."""
        totals = [torch.zeros_like(parameter) for parameter in self._state.module.parameters()]
        clipped = 0
        # Parts of almost equal size: none is so small that its fixed costs weigh.
        for part in sample.tensor_split(ceil(len(sample) / self._part)) if len(sample) else ():
            sums, squared = self._sums(part)
            torch._foreach_add_(totals, sums)
            if self.optimizer.adaptive is not None:  # otherwise the count is not read: reading it waits for the device
                clipped += int((squared.sqrt() > self.optimizer.max_grad_norm).sum())
        self.optimizer.release(totals, units=len(sample), clipped=clipped)

    def close(self) -> None:
        """Takes the hooks, if there are any, off the module."""
        self._clip.close()

    def _sums(self, part: Tensor) -> tuple[list[Tensor], Tensor]:
        """Clipped sums over the examples whose gradient is finite, and the squared norms of those."""
        sums, squared = self._clip(part, self.optimizer.max_grad_norm)
        finite = torch.isfinite(squared)
        if finite.all():
            return sums, squared
        if finite.any():
            return self._sums(part[finite])
        return [torch.zeros_like(total) for total in sums], squared[finite]


class BookKeeping:
    """Our own passes by PyTorch's operations; see `clipped_sums`."""

    def __init__(self, state: TrainState, spec: ModelSpec) -> None:
        self._state, self._layers = state, spec.layers
        self._weights = [parameter.detach() for parameter in state.module.parameters()]
        self.facts = {"grad_sample": "book_keeping", "kernel": "torch"}

    def __call__(self, sample: Tensor, clip_norm: float) -> tuple[list[Tensor], Tensor]:
        """Returns the clipped sums of a sample, and its squared norms (n,)."""
        with torch.inference_mode():
            batch = self._state.inputs.index_select(0, sample), self._state.labels[sample]
            return clipped_sums(self._layers, clip_norm, self._weights, *batch)

    def close(self) -> None:
        """There are no hooks."""


class GhostClipping:
    """Opacus' ghost clipping: one backward pass for the norms, a second one for the clipped sum.

    Source: Li et al. 2022, arXiv:2110.05679, section 4.
    """

    def __init__(self, state: TrainState) -> None:
        self._state, self._parameters = state, list(state.module.parameters())
        self._module = GradSampleModuleFastGradientClipping(state.module, loss_reduction="sum", use_ghost_clipping=True)
        self.facts = {"grad_sample": "ghost"}

    def __call__(self, sample: Tensor, clip_norm: float) -> tuple[list[Tensor], Tensor]:
        """Returns the clipped sums of a sample, and its squared norms (n,)."""
        self._module.max_grad_norm = clip_norm
        with _quiet_hooks():
            outputs = self._module(self._state.inputs[sample])
            losses = cross_entropy(outputs, self._state.labels[sample], reduction="none")
            torch.autograd.grad(losses.sum(), self._parameters, retain_graph=True)
            factors = self._module.get_clipping_coef()
            self._module.disable_hooks()
            sums = torch.autograd.grad((factors * losses).sum(), self._parameters)
            self._module.enable_hooks()
        return list(sums), self._module.per_sample_gradient_norms.square()

    def close(self) -> None:
        """Takes the hooks off the module."""
        self._module.remove_hooks()


@contextmanager
def _quiet_hooks() -> Iterator[None]:
    with warnings.catch_warnings():
        # Inputs need no gradients, and PyTorch warns of that for every full backward hook.
        warnings.filterwarnings("ignore", "Full backward hook is firing")
        yield


def noised(total: Tensor, noise: Tensor, stddev: float) -> Tensor:
    """Returns total + stddev * noise, rounded to the grid of that noise; see `noise_grid`.

    Args:
      total: float32.
      noise: standard normal, float64, of the same shape; it is overwritten.
      stddev: >= 0.
    """
    grid = noise_grid(stddev)
    noise.mul_(stddev).add_(total)
    if grid:
        noise.div_(grid).round_().mul_(grid)
    return noise.to(total.dtype)
