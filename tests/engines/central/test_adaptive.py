"""Adaptive clipping in PyTorch: the clip norm follows the norms, and the noise follows the clip norm."""

from dataclasses import replace

import numpy as np
import pytest

from pipelines.config.pipeline_settings import DpSgdConfig, DpSgdUsersConfig
from pipelines.core.errors import UserError
from pipelines.data.partition.division import Partition
from pipelines.engines.central.dp_sgd import DpSgd, choose
from pipelines.engines.central.training import Hardware
from pipelines.engines.interface import Fit, TrainingData
from pipelines.model.spec import build_spec
from pipelines.privacy.mechanisms.base import AdaptiveClipping, PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism

from .conftest import MakeData, plain_dp_sgd, plain_dp_sgd_users

MODES = ["book_keeping", "ghost"]
EXACT = AdaptiveClipping(target_quantile=0.5, learning_rate=0.2, count_stddev=0.0)


def plan(**changes: object) -> PoissonGaussianMechanism:
    values = {
        "unit": PrivacyUnit.EXAMPLE, "population": 40, "sampling_probability": 1.0, "steps": 1,
        "noise_multiplier": 0.0, "clip_norm": 0.5, "delta": 1e-3, "adaptive": EXACT,
    }  # fmt: skip
    return PoissonGaussianMechanism(**(values | changes))  # type: ignore[arg-type]


SIZES = {"batch_size": 40, "max_physical_batch": 7}


def settings(**changes: object) -> DpSgdConfig:
    return plain_dp_sgd(**SIZES | changes)


def settings_of(mechanism: PoissonGaussianMechanism, **changes: object) -> DpSgdConfig | DpSgdUsersConfig:
    over_users = mechanism.unit is PrivacyUnit.USER
    return plain_dp_sgd_users(**SIZES | changes) if over_users else settings(**changes)


def fit(data: TrainingData, mechanism: PoissonGaussianMechanism, noise_seed: int | None = 0, **changes: object) -> Fit:
    hardware = Hardware(device="cpu", threads=1)
    pipeline = DpSgd(settings_of(mechanism, **changes), mechanism, noise_seed=noise_seed, hardware=hardware)
    return pipeline.fit(data, lambda _: None)


def final_clip(fitted: Fit) -> float:
    return float(fitted.facts["final_clip_norm"])


def scattered(data: TrainingData) -> TrainingData:
    """Inputs of many lengths and a model at zero, whose gradients' norms are then known: sqrt(|x|^2 + 1) sqrt(2/3)."""
    scales = np.geomspace(0.1, 30, len(data.labels)).astype(np.float32)
    return replace(data, inputs=data.inputs / np.linalg.norm(data.inputs, axis=1, keepdims=True) * scales[:, None])


def norms(data: TrainingData) -> np.ndarray:
    # Three classes at probability 1/3: the gradient at the logits is (-2/3, 1/3, 1/3), of length sqrt(2/3).
    return np.sqrt((data.inputs**2).sum(axis=1) + 1) * np.sqrt(2 / 3)


@pytest.mark.parametrize("mode", MODES)
def test_the_norm_follows_the_share_within_it(make_data: MakeData, mode: str) -> None:
    data = scattered(make_data())
    for clip_norm in (0.01, 2.0, 1e3):
        within = np.mean(norms(data) <= clip_norm)
        moved = final_clip(fit(data, plan(clip_norm=clip_norm), grad_sample=mode))
        assert moved == pytest.approx(clip_norm * np.exp(-0.2 * (within - 0.5)), rel=1e-5)


@pytest.mark.parametrize("unit", list(PrivacyUnit))
@pytest.mark.parametrize(("quantile", "start"), [(0.25, 0.05), (0.75, 50.0)])
def test_the_norm_converges_to_the_quantile(
    make_data: MakeData, unit: PrivacyUnit, quantile: float, start: float
) -> None:
    data = scattered(make_data())
    data = replace(data, partition=Partition(tuple(np.arange(40)[:, None])))  # a user for each example
    adaptive = AdaptiveClipping(target_quantile=quantile, learning_rate=0.2, count_stddev=1.0)
    mechanism = plan(unit=unit, steps=100, clip_norm=start, adaptive=adaptive, noise_multiplier=0.5)
    found = final_clip(fit(data, mechanism, learning_rate=1e-9))
    low, high = np.quantile(norms(data), [quantile - 0.1, quantile + 0.1])
    assert low < found < high


@pytest.mark.parametrize("mode", MODES)
def test_sums_are_clipped_to_the_norm_of_their_step(make_data: MakeData, mode: str) -> None:
    # Everyone is far beyond the norm, in one direction: every step moves the model by exactly that step's norm.
    data = make_data(n=40)
    data = replace(data, inputs=np.full_like(data.inputs, 9.0), labels=np.zeros_like(data.labels))
    kernels = [data.initial_weights]
    pipeline = DpSgd(
        settings(grad_sample=mode, learning_rate=0.01), plan(clip_norm=0.1, steps=4), noise_seed=0,
        hardware=Hardware(device="cpu", threads=1),
    )  # fmt: skip
    pipeline.fit(data, lambda record: kernels.append(record.model.weights()))
    flat = np.array([np.concatenate([value.ravel() for value in weights]) for weights in kernels])
    steps = np.linalg.norm(np.diff(flat, axis=0), axis=1) / 0.01
    assert steps == pytest.approx(0.1 * np.exp(0.1 * np.arange(4)), rel=1e-4)


@pytest.mark.parametrize("unit", list(PrivacyUnit))
def test_noise_is_the_updates_share_times_the_clipping_norm(make_data: MakeData, unit: PrivacyUnit) -> None:
    # Zero inputs: every change of the kernel is noise, and no norm exceeds sqrt(2), that of a gradient at the logits.
    data = make_data(features=(200,), classes=10, n=40)
    data = replace(data, inputs=np.zeros_like(data.inputs), partition=Partition(tuple(np.arange(40)[:, None])))
    adaptive = AdaptiveClipping(target_quantile=0.5, learning_rate=0.5, count_stddev=2.0)
    mechanism = plan(unit=unit, clip_norm=5.0, steps=3, noise_multiplier=2.0, adaptive=adaptive)
    kernels = [data.initial_weights[0]]
    hardware = Hardware(device="cpu", threads=1)
    pipeline = DpSgd(settings_of(mechanism, learning_rate=1.0), mechanism, noise_seed=4, hardware=hardware)
    pipeline.fit(data, lambda record: kernels.append(record.model.weights()[0]))
    # z with z^-2 + 4^-2 = 2^-2 is 2.3094. Everyone is within, so the norm falls by e^(-.25).
    assert mechanism.update_noise_multiplier == pytest.approx(2.3094, abs=1e-4)
    deviations = np.diff(np.array(kernels), axis=0).std(axis=(1, 2)) * 40 / 2.3094
    # 2,000 weights: a standard error of 1.6 %. The count's noise moves the norm by 2.5 %.
    assert deviations[0] == pytest.approx(5.0, rel=0.08)
    assert deviations[1] == pytest.approx(5.0 * np.exp(-0.25), rel=0.12)
    assert deviations[2] == pytest.approx(5.0 * np.exp(-0.5), rel=0.15)


def test_one_that_overflows_counts_as_within_the_norm(make_data: MakeData) -> None:
    # It is left out, which is a contribution of zero; TFF counts it alike.
    data = make_data("mlp", n=4)
    inputs = np.full_like(data.inputs, 50.0)
    inputs[3] = np.inf
    mechanism = plan(population=4, clip_norm=1e-3)
    moved = final_clip(fit(replace(data, inputs=inputs), mechanism))
    assert moved == pytest.approx(1e-3 * np.exp(-0.2 * (0.25 - 0.5)), rel=1e-5)


def test_the_accounting_is_that_of_the_whole_noise() -> None:
    adaptive = replace(EXACT, count_stddev=5.0)
    mechanism = plan(
        population=1000, sampling_probability=0.1, steps=50, noise_multiplier=1.0, delta=1e-5, adaptive=adaptive
    )
    assert mechanism.epsilon() == replace(mechanism, adaptive=None).epsilon()
    assert mechanism.update_noise_multiplier > 1.0


def test_gradient_modes_without_norms_are_refused_or_not_chosen(make_data: MakeData) -> None:
    for mode in ("hooks", "functorch"):
        with pytest.raises(UserError, match=rf"adaptive needs the norm.*grad_sample={mode} keeps.*grad_sample=auto"):
            fit(make_data(), plan(), grad_sample=mode)
    unknown = replace(build_spec("linear", features=(2,), classes=2), layers=(object(),))  # type: ignore[arg-type]
    assert choose(settings(), unknown, adaptive=True) == "ghost"
    assert choose(settings(), unknown) == "hooks"
