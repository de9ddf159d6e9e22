"""Bugs between configuration, data, engine and accounting."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipelines.data.dataset import Dataset
from pipelines.data.split import Split
from pipelines.engines.central.dp_sgd import DpSgd
from pipelines.engines.interface import Fit
from pipelines.privacy.mechanisms import planning
from pipelines.privacy.mechanisms.base import Mechanism
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism
from pipelines.runs import prepare as job


def one_step_fewer(patch: pytest.MonkeyPatch) -> None:
    real = PoissonGaussianMechanism.executed
    patch.setattr(PoissonGaussianMechanism, "executed", lambda self, steps: real(self, steps - 1))


def _refit(**changes: Any) -> Any:
    def plant(patch: pytest.MonkeyPatch) -> None:
        real = DpSgd.fit

        def fit(self: DpSgd, data: Any, on_round: Any) -> Fit:
            found = real(self, data, on_round)
            assert found.executed is not None
            return replace(found, executed=replace(found.executed, **changes))

        patch.setattr(DpSgd, "fit", fit)

    return plant


delta_changed = _refit(delta=5e-4)


def _another_plan(change: Callable[[Any], Any]) -> Any:
    """The engine gets `change(plan)`, which was not accounted for."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        real = job.build_pipeline
        patch.setattr(job, "build_pipeline", lambda config, plan, threads: real(config, change(plan), threads))

    return plant


quieter_engine = _another_plan(lambda plan: replace(plan, noise_multiplier=plan.noise_multiplier / 2))
wider_clip = _another_plan(lambda plan: replace(plan, clip_norm=2 * plan.clip_norm))


def _epsilon_of(change: Callable[[PoissonGaussianMechanism], PoissonGaussianMechanism]) -> Any:
    """The guarantee's epsilon is that of `change(plan)`."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        real = PoissonGaussianMechanism.epsilon
        patch.setattr(PoissonGaussianMechanism, "epsilon", lambda plan: real(change(plan)))

    return plant


half_the_steps = _epsilon_of(lambda plan: replace(plan, steps=plan.steps // 2))
half_the_probability = _epsilon_of(lambda plan: replace(plan, sampling_probability=plan.sampling_probability / 2))


def free_count(patch: pytest.MonkeyPatch) -> None:
    """Adaptive clipping whose count is accounted for as if it were free."""
    own = property(lambda plan: plan.update_noise_multiplier)
    patch.setattr(PoissonGaussianMechanism, "effective_noise_multiplier", own)


def central_limit(patch: pytest.MonkeyPatch) -> None:
    """Epsilon by the central limit theorem, as in Opacus' GDP accountant."""
    from opacus.accountants.analysis.gdp import compute_eps_poisson

    def gdp(plan: PoissonGaussianMechanism) -> float:
        return float(
            compute_eps_poisson(
                steps=plan.steps, noise_multiplier=plan.noise_multiplier, sample_rate=plan.sampling_probability,
                delta=plan.delta,
            )
        )  # fmt: skip

    patch.setattr(PoissonGaussianMechanism, "epsilon", gdp)


def private_size(patch: pytest.MonkeyPatch) -> None:
    real = planning.plan_for

    def plan_for(pipeline: Any, privacy: Any, units: int) -> Mechanism:
        return real(pipeline, privacy.model_copy(update={"population": None}), units)

    patch.setattr(planning, "plan_for", plan_for)


def leak(patch: pytest.MonkeyPatch) -> None:
    real = job.load_dataset

    def load(config: Any) -> Dataset:
        found = real(config)
        train = Split(
            np.concatenate([found.train.inputs, found.test.inputs]),
            np.concatenate([found.train.labels, found.test.labels]),
        )
        return replace(found, train=train)

    patch.setattr(job, "load_dataset", load)
