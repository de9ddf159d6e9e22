"""Differentially private SGD with Opacus.

Opacus supplies the optimizer that adds noise once per logical step and divides by a public constant; the clipped sums
that it gets come from Opacus or from our own book-keeping. Sampling is ours: Opacus' own loader derives its rate from
the length of the private data.

Source: Abadi et al. 2016, arXiv:1607.00133, algorithm 1, with Poisson sampling.
"""

import torch
from opacus.validators import ModuleValidator

from pipelines.central.book_keeping import supports
from pipelines.central.gradients import Mode, private_gradients
from pipelines.central.training import Clock, Hardware, Workbench, learning_rate, set_learning_rate
from pipelines.config import DpSgdConfig
from pipelines.errors import UserError
from pipelines.model.spec import ModelSpec
from pipelines.pipeline import Fit, OnRound, TrainingData
from pipelines.privacy.conformity import require_independent
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
        settings, plan, mode = self._settings, self._plan, choose(self._settings, data.spec)
        bench = Workbench.of(data, self._hardware, contiguous=mode != "fast")
        # Validated on every run: a layer that mixes examples, such as batch normalisation, voids the clipping.
        ModuleValidator.validate(bench.module, strict=True)
        noise, sampling = (private_stream(self._noise_seed, name) for name in ("noise", "sampling"))
        require_independent(noise, sampling)
        gradients = private_gradients(mode, bench, data.spec, settings, plan, noise)
        clock = Clock(plan.steps, on_round, bench.module)
        for step in range(1, plan.steps + 1):
            sample = poisson_sample(len(data.labels), plan.sampling_probability, sampling)
            set_learning_rate(gradients.optimizer, learning_rate(settings, step, plan.steps))
            gradients.step(torch.from_numpy(sample).to(bench.device))
            record = clock.tick(step, step * plan.normaliser)
        gradients.close()
        return Fit(record=record, executed=plan.executed(step), facts={**bench.facts(), "grad_sample": mode})


def choose(settings: DpSgdConfig, spec: ModelSpec) -> Mode:
    """Resolves `grad_sample`: auto is fast for every model that it knows, and Opacus' hooks otherwise.

    Raises:
      UserError: fast was asked for and does not know a layer of the model.
    """
    if settings.grad_sample == "auto":
        return "fast" if supports(spec) else "hooks"
    if settings.grad_sample == "fast" and not supports(spec):
        raise UserError(
            f"pipeline.grad_sample=fast does not know every layer of model={spec.name}; use pipeline.grad_sample=auto"
        )
    return settings.grad_sample
