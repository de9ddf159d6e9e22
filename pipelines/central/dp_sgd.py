"""Differentially private SGD with Opacus.

Opacus supplies the per-example gradients and the optimizer that clips, adds noise once per logical step and divides by
a public constant. Sampling is ours: Opacus' own loader derives its rate from the length of the private data.

Source: Abadi et al. 2016, arXiv:1607.00133, algorithm 1, with Poisson sampling.
"""

import warnings

import numpy as np
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from opacus.optimizers.optimizer import _check_processed_flag, _mark_as_processed
from opacus.validators import ModuleValidator
from torch import Tensor
from torch.nn.functional import cross_entropy

from pipelines.central.training import Clock, Hardware, Workbench, build_optimizer, learning_rate, set_learning_rate
from pipelines.config import DpSgdConfig
from pipelines.errors import UserError
from pipelines.pipeline import Fit, OnRound, TrainingData
from pipelines.privacy.plan import MechanismPlan, PrivacyUnit
from pipelines.privacy.sampling import poisson_sample
from pipelines.randomness import private_stream


class DpSgd:
    """Runs a mechanism plan whose units are examples."""

    def __init__(
        self, settings: DpSgdConfig, plan: MechanismPlan, *, noise_seed: int | None, hardware: Hardware
    ) -> None:
        if plan.unit is not PrivacyUnit.EXAMPLE or plan.adaptive is not None:
            raise UserError(f"pipeline=dp_sgd protects examples with a fixed clip norm; the plan has {plan}")
        self._settings, self._plan, self._noise_seed, self._hardware = settings, plan, noise_seed, hardware

    def fit(self, data: TrainingData, on_round: OnRound) -> Fit:
        """Trains for the plan's steps; the fit's executed plan holds those that ran."""
        settings, plan, bench = self._settings, self._plan, Workbench.of(data, self._hardware)
        # Validated on every run: a layer that mixes examples, such as batch normalisation, voids the clipping.
        ModuleValidator.validate(bench.module, strict=True)
        module = GradSampleModule(bench.module, loss_reduction="sum")
        optimizer = KeyedOptimizer(
            build_optimizer(module, settings),
            noise_multiplier=plan.noise_multiplier,
            max_grad_norm=plan.clip_norm,
            expected_batch_size=plan.normaliser,
            rng=private_stream(self._noise_seed, "noise"),
        )
        clock = Clock(plan.steps, on_round, bench.module)
        sampling = private_stream(self._noise_seed, "sampling")
        for step in range(1, plan.steps + 1):
            sample = poisson_sample(len(data.labels), plan.sampling_probability, sampling)
            set_learning_rate(optimizer, learning_rate(settings, step, plan.steps))
            self._step(module, optimizer, bench, torch.from_numpy(sample).to(bench.device))
            record = clock.tick(step, step * plan.normaliser)
        module.remove_hooks()
        return Fit(record=record, executed=plan.executed(step), facts={**bench.facts(), "grad_sample": "hooks"})

    def _step(self, module: GradSampleModule, optimizer: DPOptimizer, bench: Workbench, sample: Tensor) -> None:
        """One logical step: clipped sums accumulate over physical batches, and noise is added with the last."""
        parts = sample.split(self._settings.max_physical_batch) if len(sample) else (sample,)
        for k, part in enumerate(parts):
            optimizer.signal_skip_step(do_skip=k < len(parts) - 1)
            if len(part):
                _per_example_gradients(module, bench.inputs[part], bench.labels[part])
            else:
                # An empty sample is a step of pure noise.
                for parameter in module.parameters():
                    parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))
            optimizer.step()
            optimizer.zero_grad()


class KeyedOptimizer(DPOptimizer):
    """Opacus' optimizer with noise from a numpy stream, whose seed has 128 bits.

    PyTorch's CPU generator keeps 32 bits of its seed: whoever tries them all could take the noise off a model.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, rng: np.random.Generator, **settings: float) -> None:
        super().__init__(optimizer, **settings)
        self._rng = rng

    def add_noise(self) -> None:
        """Adds N(0, (noise_multiplier * max_grad_norm)^2) to every coordinate of the clipped sums."""
        for parameter in self.params:
            _check_processed_flag(parameter.summed_grad)
            noise = torch.from_numpy(self._rng.standard_normal(parameter.shape, np.float32)).to(parameter.device)
            parameter.grad = parameter.summed_grad + self.noise_multiplier * self.max_grad_norm * noise
            _mark_as_processed(parameter.summed_grad)


def _per_example_gradients(module: GradSampleModule, inputs: Tensor, labels: Tensor) -> None:
    """Leaves each parameter's per-example gradients, (n, *shape), in its `grad_sample`."""
    with warnings.catch_warnings():
        # Inputs need no gradients; PyTorch mentions that of every full backward hook.
        warnings.filterwarnings("ignore", "Full backward hook is firing")
        cross_entropy(module(inputs), labels, reduction="sum").backward()
    for parameter in module.parameters():
        # One example whose gradient overflows must not decide what happens to the sum; clipping cannot bound it.
        # The sum is a quick test: it is finite whenever there is nothing to mend.
        if not torch.isfinite(parameter.grad_sample.sum()):
            parameter.grad_sample = torch.nan_to_num(parameter.grad_sample, nan=0.0, posinf=0.0, neginf=0.0)
