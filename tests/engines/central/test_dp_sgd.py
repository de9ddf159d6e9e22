"""Private training with Opacus does what its plan says."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from dp_accounting import GaussianDpEvent
from torch.nn.functional import cross_entropy

from pipelines.config.pipeline_settings import DpSgdConfig
from pipelines.core.errors import GuaranteeError
from pipelines.engines.central import gradients
from pipelines.engines.central.dp_sgd import DpSgd
from pipelines.engines.central.gradients import KeyedOptimizer
from pipelines.engines.central.torch_model import build_module
from pipelines.engines.central.training import Hardware
from pipelines.engines.interface import Fit, RoundRecord, TrainingData
from pipelines.privacy.mechanisms.base import PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism

from .conftest import MakeData, plain_dp_sgd

CPU = Hardware(device="cpu", threads=1)


def plan(**changes: object) -> PoissonGaussianMechanism:
    values = {
        "unit": PrivacyUnit.EXAMPLE, "population": 40, "sampling_probability": 1.0, "steps": 1,
        "noise_multiplier": 0.0, "clip_norm": 0.5, "delta": 1e-3,
    }  # fmt: skip
    return PoissonGaussianMechanism(**(values | changes))  # type: ignore[arg-type]


def fit(data: TrainingData, mechanism: PoissonGaussianMechanism, noise_seed: int | None = 0, **changes: object) -> Fit:
    values = {
        "name": "dp_sgd", "optimizer": "sgd", "learning_rate": 1.0, "momentum": 0.0, "weight_decay": 0.0,
        "schedule": "constant", "batch_size": 40, "epochs": 1, "max_physical_batch": 1000, "grad_sample": "auto",
    }  # fmt: skip
    settings = DpSgdConfig.model_validate(values | changes)
    return DpSgd(settings, mechanism, noise_seed=noise_seed, hardware=CPU).fit(data, lambda _: None)


def clipped_sum(data: TrainingData, clip: float) -> list[torch.Tensor]:
    """One backward pass an example, clipped and summed: the definition, slowly."""
    module = build_module(data.spec, data.initial_weights)
    totals = [torch.zeros_like(parameter) for parameter in module.parameters()]
    for image, label in zip(torch.from_numpy(data.inputs), torch.from_numpy(data.labels), strict=True):
        loss = cross_entropy(module(image[None]), label[None])
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        norm = torch.sqrt(sum((g**2).sum() for g in gradients))  # type: ignore[arg-type]
        for total, gradient in zip(totals, gradients, strict=True):
            total += gradient * min(1.0, clip / (float(norm) + 1e-6))
    return totals


@pytest.mark.parametrize(
    ("model", "features"),
    [("linear", (5,)), ("mlp", (4, 4, 1)), ("cnn", (8, 8, 1)), ("cnn", (14, 14, 3)), ("cnn", (12,))],
)
@pytest.mark.parametrize("physical", [1000, 7])
def test_step_without_noise_is_clipped_sum_over_expected_batch_size(
    make_data: MakeData, model: str, features: tuple[int, ...], physical: int
) -> None:
    data = make_data(model, features)
    moved = fit(data, plan(), max_physical_batch=physical).record.model.weights()
    start = build_module(data.spec, data.initial_weights).parameters()
    totals = clipped_sum(data, 0.5)
    expected = [(before.detach() - total / 40).numpy() for before, total in zip(start, totals, strict=True)]
    ours = [parameter.detach().numpy() for parameter in build_module(data.spec, moved).parameters()]
    assert all(a == pytest.approx(b, abs=1e-6) for a, b in zip(ours, expected, strict=True))


def test_one_example_moves_the_model_by_at_most_the_clip(make_data: MakeData) -> None:
    data = make_data(n=1)
    moved = fit(data, plan(clip_norm=0.01, population=100)).record.model.weights()
    length = np.sqrt(sum(float((weight**2).sum()) for weight in moved))
    assert length == pytest.approx(0.01 / 100, rel=1e-3)


@pytest.mark.parametrize("one_call", [gradients.ONE_CALL, 0], ids=["small", "large"])  # as models of that size draw it
@pytest.mark.parametrize("physical", [1000, 10])
def test_noise_reaches_the_weights_once_a_step_as_claimed(
    make_data: MakeData, physical: int, one_call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients, "ONE_CALL", one_call)
    # No example: every change is noise. 30 steps of 3 * 0.5 / 40 on 2,010 weights, summed: variance 30 (0.0375)^2.
    data = make_data(features=(200,), classes=10, n=40)
    silent = replace(data, inputs=np.zeros_like(data.inputs))
    steps, sigma, clip = 30, 3.0, 0.5
    mechanism = plan(noise_multiplier=sigma, clip_norm=clip, steps=steps)
    kernel, _ = fit(silent, mechanism, noise_seed=None, max_physical_batch=physical).record.model.weights()
    chi_square = float((kernel**2).sum()) / (steps * (sigma * clip / 40) ** 2)
    # With 2,000 degrees of freedom: mean 2000, standard deviation sqrt(4000).
    assert abs(chi_square - 2000) < 5 * np.sqrt(4000)


def test_an_empty_sample_is_a_step_of_noise(make_data: MakeData) -> None:
    data = make_data()
    rare = plan(sampling_probability=1e-9, steps=3)
    assert not np.any(fit(data, rare).record.model.weights()[0])
    noisy = fit(data, replace(rare, noise_multiplier=1.0))
    assert np.any(noisy.record.model.weights()[0])
    assert noisy.executed == replace(rare, noise_multiplier=1.0)


def test_no_step_is_reported_whose_noise_is_not_the_plans(make_data: MakeData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeyedOptimizer, "dp_event", property(lambda _: GaussianDpEvent(0.5)))
    steps: list[RoundRecord] = []
    pipeline = DpSgd(plain_dp_sgd(), plan(noise_multiplier=1.0), noise_seed=0, hardware=CPU)
    with pytest.raises(GuaranteeError, match=r"reports noise_multiplier=0\.5"):
        pipeline.fit(make_data(), steps.append)
    assert not steps


def test_noise_is_fresh_unless_its_seed_is_given(make_data: MakeData) -> None:
    data, mechanism = make_data(), plan(noise_multiplier=1.0, sampling_probability=0.5, steps=3)
    kernels = [fit(data, mechanism, noise_seed=seed).record.model.weights()[0] for seed in (5, 5, None, None)]
    assert np.array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[2], kernels[3])


def test_noise_depends_on_every_bit_of_its_seed(make_data: MakeData) -> None:
    # PyTorch's own generator would drop all but the lowest 32.
    data, mechanism = make_data(), plan(noise_multiplier=1.0)
    low, high = (fit(data, mechanism, noise_seed=seed).record.model.weights()[0] for seed in (7, 7 + 2**40))
    assert not np.allclose(low, high)


def test_an_overflowing_gradient_is_left_out_of_the_sum(make_data: MakeData) -> None:
    data = make_data("mlp")
    inputs = data.inputs.copy()
    inputs[3] = 3e38
    ours = fit(replace(data, inputs=inputs), plan()).record.model.weights()
    rest = np.delete(np.arange(40), 3)
    without = replace(data, inputs=data.inputs[rest], labels=data.labels[rest])
    theirs = fit(without, plan()).record.model.weights()
    distance = np.sqrt(sum(float(((a - b) ** 2).sum()) for a, b in zip(ours, theirs, strict=True)))
    assert distance <= 0.5 / 40 * 1.001


def test_the_engines_own_samples_follow_the_plans_law(make_data: MakeData) -> None:
    # All inputs zero and one label: every sampled example moves the bias by clip / expected batch size in one
    # direction.
    n, q, steps, clip = 60, 0.2, 400, 1e-3
    data = make_data(n=n)
    data = replace(data, inputs=np.zeros_like(data.inputs), labels=np.zeros_like(data.labels))
    biases = [np.zeros(3)]
    settings = DpSgdConfig(
        name="dp_sgd", optimizer="sgd", learning_rate=1.0, momentum=0.0, weight_decay=0.0, schedule="constant",
        batch_size=12, epochs=1, max_physical_batch=10, grad_sample="auto",
    )  # fmt: skip
    mechanism = plan(population=n, sampling_probability=q, steps=steps, clip_norm=clip)
    pipeline = DpSgd(settings, mechanism, noise_seed=3, hardware=Hardware(device="cpu", threads=1))
    pipeline.fit(data, lambda record: biases.append(record.model.weights()[1].astype(np.float64)))
    moves = np.linalg.norm(np.diff(biases, axis=0), axis=1)
    sizes = np.round(moves * mechanism.expected_batch_size / clip)
    assert sizes == pytest.approx(moves * mechanism.expected_batch_size / clip, abs=0.05)
    # Binomial(60, 0.2): mean 12, variance 9.6; five standard errors over 400 steps.
    assert abs(sizes.mean() - n * q) < 5 * np.sqrt(9.6 / steps)
    assert abs(sizes.var() - 9.6) < 5 * 9.6 * np.sqrt(2 / steps)


def test_examples_are_reported_as_expected_never_as_realised(make_data: MakeData) -> None:
    records: list[RoundRecord] = []
    mechanism = plan(sampling_probability=0.25, steps=4)
    settings = DpSgdConfig(
        name="dp_sgd", optimizer="sgd", learning_rate=1.0, momentum=0.0, weight_decay=0.0, schedule="constant",
        batch_size=10, epochs=1, max_physical_batch=8, grad_sample="auto",
    )  # fmt: skip
    pipeline = DpSgd(settings, mechanism, noise_seed=1, hardware=Hardware(device="cpu", threads=1))
    pipeline.fit(make_data(), records.append)
    assert [record.examples for record in records] == [10, 20, 30, 40]


def test_one_example_changes_neither_noise_nor_expected_batch_size(make_data: MakeData) -> None:
    # Zero inputs leave only the bias' gradient; the noise on the kernel must be identical.
    mechanism = plan(noise_multiplier=1.0, sampling_probability=0.5)
    kernels = []
    for n in (39, 40, 41):
        data = make_data(n=n)
        silent = replace(data, inputs=np.zeros_like(data.inputs))
        kernels.append(fit(silent, mechanism, noise_seed=9).record.model.weights()[0])
    assert np.array_equal(kernels[0], kernels[1])
    assert np.array_equal(kernels[1], kernels[2])


def test_private_training_learns(make_data: MakeData) -> None:
    data = make_data(n=400)
    mechanism = plan(population=400, noise_multiplier=1.0, sampling_probability=0.5, steps=30, clip_norm=1.0)
    model = fit(data, mechanism, momentum=0.9, learning_rate=0.5, schedule="cosine").record.model
    assert np.mean(model.logits(data.inputs).argmax(1) == data.labels) > 0.85


def replayed(optimizer: str, gradients: list[np.ndarray], start: np.ndarray) -> np.ndarray:
    """What an optimizer makes of given gradients, by its textbook equations at rate 0.1 and weight decay 0.01."""
    weights, first, second = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for t, gradient in enumerate(gradients, 1):
        if optimizer == "sgd":  # momentum 0.9
            first = 0.9 * first + gradient + 0.01 * weights
            weights = weights - 0.1 * first
            continue
        decayed = gradient + (0.01 * weights if optimizer == "adam" else 0)
        first, second = 0.9 * first + 0.1 * decayed, 0.999 * second + 0.001 * decayed**2
        shrunk = weights * (1 - 0.1 * 0.01) if optimizer == "adamw" else weights
        weights = shrunk - 0.1 * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
    return weights


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_optimizers_see_the_noised_mean_alone(make_data: MakeData, optimizer: str) -> None:
    # Noise of sigma * clip / expected batch size = 1,250, beside clipped means of at most 0.5, which differ with the
    # weights.
    data = make_data()
    mechanism = plan(noise_multiplier=1e5, steps=4)
    flat = [np.concatenate([weight.ravel() for weight in data.initial_weights]).astype(np.float64)]
    for steps in range(1, 5):  # plain steps at rate 1 lay the noised means bare
        plain = fit(data, replace(mechanism, steps=steps)).record.model.weights()
        flat.append(np.concatenate([weight.ravel() for weight in plain]).astype(np.float64))
    noised = [before - after for before, after in pairwise(flat)]
    assert min(np.std(each) for each in noised) > 500
    own = fit(data, mechanism, optimizer=optimizer, learning_rate=0.1, momentum=0.9, weight_decay=0.01)
    assert own.executed == mechanism
    ours = np.concatenate([weight.ravel() for weight in own.record.model.weights()])
    expected = replayed(optimizer, noised, flat[0])
    np.testing.assert_allclose(ours, expected, atol=3e-3 * np.abs(expected).max())
