"""The trial of fast clipped sums: what is right passes, what is wrong in any part does not train."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipelines.core.errors import GuaranteeError
from pipelines.engines.central import book_keeping, dp_sgd, gradients, training
from pipelines.engines.central import gradient_trial as trial
from pipelines.engines.central.book_keeping import ConvGradients, DenseGradients
from pipelines.engines.central.training import Hardware, TrainState
from pipelines.engines.interface import TrainingData
from pipelines.privacy.mechanisms.base import AdaptiveClipping

from .conftest import MakeData
from .test_gradients import MODELS, fit, flat_sum

IMAGES = (8, 8, 1)
ADAPTIVE = AdaptiveClipping(target_quantile=0.5, learning_rate=0.1, count_stddev=1.0)
Sums = tuple[list[Tensor], Tensor]


@pytest.fixture(autouse=True)
def no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the trial makes of kernels is in test_compiled.py."""
    monkeypatch.setattr(gradients, "compiled_sums", lambda *_: None)
    dp_sgd._warn_once.cache_clear()


def of_autograd(layers: Any, clip_norm: float, parameters: list[Tensor], inputs: Tensor, labels: Tensor) -> Sums:
    """Right sums, and every part of them at hand."""
    return combined(_each(layers, parameters, inputs, labels), clip_norm)


def _each(layers: Any, parameters: list[Tensor], inputs: Tensor, labels: Tensor) -> list[list[Tensor]]:
    """By the book-keeping itself, unbounded, one example at a time."""
    real = book_keeping.clipped_sums
    return [real(layers, 1e12, parameters, inputs[[k]], labels[[k]])[0] for k in range(len(labels))]


def combined(each: list[list[Tensor]], clip_norm: float) -> Sums:
    squared = torch.stack([torch.stack([part.square().sum() for part in own]).sum() for own in each])
    factors = (clip_norm / (squared.sqrt() + 1e-6)).clamp(max=1)
    return weighted(each, factors), squared


def weighted(each: list[list[Tensor]], factors: Tensor) -> list[Tensor]:
    return [sum(f * part for f, part in zip(factors, parts, strict=True)) for parts in zip(*each, strict=True)]


def changed(change: Callable[..., Sums]) -> Callable[..., Sums]:
    def sums(layers: Any, clip_norm: float, parameters: list[Tensor], inputs: Tensor, labels: Tensor) -> Sums:
        return change(_each(layers, parameters, inputs, labels), clip_norm)

    return sums


@changed
def per_tensor(each: list[list[Tensor]], clip_norm: float) -> Sums:
    bound = clip_norm / len(each[0]) ** 0.5
    cut = [[part * min(1.0, bound / (float(part.norm()) + 1e-6)) for part in own] for own in each]
    return weighted(cut, torch.ones(len(each))), combined(each, clip_norm)[1]


@changed
def rolled_factors(each: list[list[Tensor]], clip_norm: float) -> Sums:
    squared = combined(each, clip_norm)[1]
    return weighted(each, (clip_norm / (squared.sqrt() + 1e-6)).clamp(max=1).roll(1)), squared


@changed
def last_layer_alone(each: list[list[Tensor]], clip_norm: float) -> Sums:
    squared = combined([own[-2:] for own in each], clip_norm)[1]
    return weighted(each, (clip_norm / (squared.sqrt() + 1e-6)).clamp(max=1)), squared


@changed
def biases_left_out(each: list[list[Tensor]], clip_norm: float) -> Sums:
    squared = combined([own[::2] for own in each], clip_norm)[1]
    return weighted(each, (clip_norm / (squared.sqrt() + 1e-6)).clamp(max=1)), squared


@changed
def norms_in_another_order(each: list[list[Tensor]], clip_norm: float) -> Sums:
    sums, squared = combined(each, clip_norm)
    return sums, squared.flip(0)


@changed
def divided_by_the_batch(each: list[list[Tensor]], clip_norm: float) -> Sums:
    sums, squared = combined(each, clip_norm)
    return [total / len(each) for total in sums], squared


@changed
def not_clipped(each: list[list[Tensor]], clip_norm: float) -> Sums:
    return weighted(each, torch.ones(len(each))), combined(each, clip_norm)[1]


@changed
def half_too_loud(each: list[list[Tensor]], clip_norm: float) -> Sums:
    sums, squared = combined(each, 1.02 * clip_norm)
    return sums, squared


@changed
def unclipped_in_large_samples(each: list[list[Tensor]], clip_norm: float) -> Sums:
    _, squared = combined(each, clip_norm)
    factors = (clip_norm / (squared.sqrt() + 1e-6)).clamp(max=1)
    factors[24:] = 1
    return weighted(each, factors), squared


class Stale:
    """Factors of the step before."""

    def __init__(self) -> None:
        self._before = torch.ones(0)

    def __call__(self, layers: Any, clip_norm: float, parameters: list[Tensor], inputs: Tensor, labels: Tensor) -> Sums:
        each = _each(layers, parameters, inputs, labels)
        squared = combined(each, clip_norm)[1]
        now = (clip_norm / (squared.sqrt() + 1e-6)).clamp(max=1)
        used, self._before = (self._before if len(self._before) == len(now) else now), now
        return weighted(each, used), squared


WRONG = [
    per_tensor, rolled_factors, last_layer_alone, biases_left_out, norms_in_another_order, divided_by_the_batch,
    not_clipped, half_too_loud, unclipped_in_large_samples, Stale(),
]  # fmt: skip


def attempt(data: TrainingData) -> None:
    state = TrainState.of(data, Hardware(device="cpu", threads=2))
    trial.require_sound(lambda problem: gradients.BookKeeping(problem, data.spec), state, data.spec)


@pytest.mark.parametrize(("model", "features"), MODELS)
def test_book_keeping_passes_on_every_model(make_data: MakeData, model: str, features: tuple[int, ...]) -> None:
    attempt(make_data(model, features))


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_what_is_right_by_another_way_passes(make_data: MakeData, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    monkeypatch.setattr(gradients, "clipped_sums", of_autograd)
    attempt(make_data(model, IMAGES))


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: getattr(wrong, "__name__", "stale"))
@pytest.mark.parametrize("model", ["linear", "mlp", "cnn"])
def test_a_wrong_way_fails_its_trial(
    make_data: MakeData, monkeypatch: pytest.MonkeyPatch, model: str, wrong: Callable[..., Sums]
) -> None:
    if model == "linear" and wrong is last_layer_alone:
        pytest.skip("its only layer is the last")
    monkeypatch.setattr(gradients, "clipped_sums", wrong)
    with pytest.raises(trial.TrialError):
        attempt(make_data(model, IMAGES))


def conv_without_bias(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ConvGradients, "squared_norms", property(lambda self: self.kernels.flatten(1).square().sum(1)))


def dense_without_bias(patch: pytest.MonkeyPatch) -> None:
    norms = property(lambda self: self.inputs.square().sum(1) * self.outputs.square().sum(1))
    patch.setattr(DenseGradients, "squared_norms", norms)


@pytest.mark.parametrize("plant", [conv_without_bias, dense_without_bias])
def test_book_keeping_that_fails_leaves_training_to_opacus(
    make_data: MakeData, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    plant: Callable[[pytest.MonkeyPatch], None],
) -> None:  # fmt: skip
    data = make_data("cnn", (28, 28, 1))
    expected = flat_sum(data, "hooks")
    plant(monkeypatch)
    assert [fit(data, "auto").facts["grad_sample"] for _ in range(2)] == ["hooks", "hooks"]
    assert flat_sum(data, "auto") == pytest.approx(expected, abs=1e-6)
    assert fit(data, "auto", adaptive=ADAPTIVE).facts["grad_sample"] == "ghost"
    hooks, ghost = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "grad_sample=hooks" in hooks
    assert "grad_sample=ghost" in ghost


def test_fast_is_refused_where_book_keeping_fails(make_data: MakeData, monkeypatch: pytest.MonkeyPatch) -> None:
    dense_without_bias(monkeypatch)
    with pytest.raises(
        GuaranteeError, match=r"^pipeline.grad_sample=book_keeping fails .*clips to a norm.*grad_sample=auto$"
    ):
        fit(make_data("mlp"), "torch")


class OverTheBatch(nn.Module):
    """No list of layers has it."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs / len(inputs)


@pytest.mark.parametrize("model", ["linear", "mlp"])
@pytest.mark.parametrize("mode", ["auto", "torch", "hooks", "ghost", "functorch"])
def test_a_layer_that_sees_the_batch_is_refused(
    make_data: MakeData, monkeypatch: pytest.MonkeyPatch, mode: str, model: str
) -> None:
    real = training.build_module
    monkeypatch.setattr(training, "build_module", lambda *a, **b: nn.Sequential(OverTheBatch(), *real(*a, **b)))
    with pytest.raises(GuaranteeError, match=rf"^model={model} gives an example different outputs in a batch"):
        fit(make_data(model), mode)


def test_norms_of_the_trial_span_decades_and_weights_stay(make_data: MakeData) -> None:
    data = make_data("cnn", (28, 28, 1))
    state = TrainState.of(data, Hardware(device="cpu", threads=1))
    problem = trial._problem(state, data.spec)
    norms = gradients.BookKeeping(problem, data.spec)(torch.arange(len(trial.SCALES)), 1.0)[1].sqrt()
    assert float(norms.max() / norms.min()) > 100
    assert not problem.inputs[0].any()
    attempt(data)
    weights = training.TorchModel(state.module).weights()
    assert all(map(np.array_equal, weights, data.initial_weights))
