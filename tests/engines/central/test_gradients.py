"""Every way to a private step gives the same clipped sums, by the definition."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.config.pipeline_settings import DpSgdConfig
from pipelines.core.errors import UserError
from pipelines.engines.central import book_keeping, gradients
from pipelines.engines.central.dp_sgd import DpSgd, choose
from pipelines.engines.central.gradients import noised
from pipelines.engines.central.training import Hardware
from pipelines.engines.interface import Fit, TrainingData
from pipelines.model.spec import Conv, build_spec
from pipelines.privacy.mechanisms.base import PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism
from pipelines.privacy.noise_grid import noise_grid

from .conftest import MakeData

MODES = ["compiled", "torch", "hooks", "ghost", "functorch"]
"""Values of grad_sample, but for the first two: book_keeping with its compiled kernel, where it has one, or without."""
MODELS = [
    ("linear", (5,)),
    ("mlp", (4, 4, 1)),
    ("cnn", (8, 8, 1)),
    ("cnn", (14, 14, 3)),
    ("cnn", (28, 28, 1)),
    ("cnn", (12,)),
    ("cnn", (3,)),
    ("relu mlp", (5,)),
    ("relu cnn", (8, 8, 1)),
    ("layers", (12, 13, 3)),
]


def fit(
    data: TrainingData, mode: str, *, physical: int = 1000, seed: int = 0, threads: int = 1, **changes: object
) -> Fit:
    """Trains at rate 1 towards a expected batch size of 1, so that a step without noise is minus the clipped sum."""
    settings = DpSgdConfig.model_validate(
        {"name": "dp_sgd", "optimizer": "sgd", "learning_rate": 1.0, "momentum": 0.0, "weight_decay": 0.0,
         "schedule": "constant", "batch_size": 1, "epochs": 1, "max_physical_batch": physical,
         "grad_sample": "book_keeping" if mode in ("compiled", "torch") else mode}
    )  # fmt: skip
    plan = PoissonGaussianMechanism(
        unit=PrivacyUnit.EXAMPLE, population=1, sampling_probability=1.0, steps=1, noise_multiplier=0.0,
        clip_norm=0.5, delta=1e-3,
    )  # fmt: skip
    plan = replace(plan, **changes)  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        if mode == "torch":
            patch.setattr(gradients, "compiled_sums", lambda *_: None)
        pipeline = DpSgd(settings, plan, noise_seed=seed, hardware=Hardware(device="cpu", threads=threads))
        return pipeline.fit(data, lambda _: None)


def flat_sum(data: TrainingData, mode: str, **settings: object) -> np.ndarray:
    """Minus the sum over the clip norm, flat."""
    moved = fit(data, mode, **settings).record.model.weights()  # type: ignore[arg-type]
    return np.concatenate([(a - b).ravel() for a, b in zip(moved, data.initial_weights, strict=True)]) / 0.5


@pytest.mark.parametrize("n", [1, 40])
@pytest.mark.parametrize(("model", "features"), MODELS)
def test_all_modes_give_the_same_clipped_sums(
    make_data: MakeData, model: str, features: tuple[int, ...], n: int
) -> None:
    data = make_data(model, features, n=n)
    # Some gradients are longer than the bound and some are not.
    data.inputs[::2] *= 0.01
    reference = flat_sum(data, "functorch")
    assert np.linalg.norm(reference) > 0.1
    for mode in MODES:
        assert flat_sum(data, mode) == pytest.approx(reference, abs=1e-5)
        # 7 divides 40 into six parts of unequal size.
        assert flat_sum(data, mode, physical=7) == pytest.approx(reference, abs=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("physical", [1000, 7])
@pytest.mark.parametrize(
    ("model", "features"),
    [("linear", (5,)), ("mlp", (5,)), ("cnn", (8, 8, 1)), ("relu mlp", (5,)), ("relu cnn", (8, 8, 1))],
)
def test_an_example_that_overflows_is_left_out_whole(
    make_data: MakeData, mode: str, physical: int, model: str, features: tuple[int, ...]
) -> None:
    data = make_data(model, features)
    inputs = data.inputs.copy()
    inputs[3] = np.inf
    inputs[3].ravel()[::2] *= -1
    rest = np.delete(np.arange(40), 3)
    without = replace(data, inputs=data.inputs[rest], labels=data.labels[rest])
    ours = flat_sum(replace(data, inputs=inputs), mode, physical=physical)
    assert ours == pytest.approx(flat_sum(without, mode), abs=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_a_batch_of_nothing_but_overflow_moves_nothing(make_data: MakeData, mode: str, model: str) -> None:
    data = make_data(model, (8, 8, 1), n=2)
    assert not np.any(flat_sum(replace(data, inputs=np.full_like(data.inputs, np.inf)), mode))


@pytest.mark.parametrize("physical", [1000, 7])
def test_modes_share_their_noise_and_add_it_once_a_step(make_data: MakeData, physical: int) -> None:
    data = make_data("cnn", (8, 8, 1))
    plan: dict[str, Any] = {"population": 40, "sampling_probability": 0.4, "steps": 4, "noise_multiplier": 1.0}
    runs = [fit(data, mode, physical=physical, seed=5, **plan).record.model.weights() for mode in MODES]
    reference = fit(data, "hooks", seed=5, **plan).record.model.weights()
    for weights in runs:
        assert all(a == pytest.approx(b, abs=1e-5) for a, b in zip(weights, reference, strict=True))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_an_empty_sample_is_a_noise_step_in_every_mode(make_data: MakeData, mode: str, model: str) -> None:
    data = make_data(model, (8, 8, 1))
    rare: dict[str, Any] = {"population": 40, "sampling_probability": 1e-9, "steps": 3}
    assert not np.any(flat_sum(data, mode, **rare))
    noisy = fit(data, mode, **rare, noise_multiplier=1.0)
    # Divided by the public 4e-8, as always.
    assert all(np.abs(weights).max() > 1e6 for weights in noisy.record.model.weights())


def test_a_convolution_takes_the_cheaper_way_to_its_norms() -> None:
    layer = Conv(16, 32, (4, 4), (2, 2), (0, 0))
    for side, kind in ((6, book_keeping.GhostConvGradients), (13, book_keeping.ConvGradients)):
        # 2 x 2 and 5 x 5 positions: 4^2 (256 + 32) < 2 * 256 * 32 < 25^2 (256 + 32).
        inputs = torch.randn(3, side, side, 16)
        outputs = torch.randn(3, (side - 4) // 2 + 1, (side - 4) // 2 + 1, 32)
        assert isinstance(book_keeping.layer_gradients(layer, inputs, outputs), kind)


def test_the_mode_is_chosen_by_model_and_recorded(make_data: MakeData) -> None:
    facts = {mode: fit(make_data(), mode).facts["grad_sample"] for mode in ["auto", *MODES]}
    assert facts == dict.fromkeys(["auto", "compiled", "torch"], "book_keeping") | {mode: mode for mode in MODES[2:]}


def test_a_model_with_an_unknown_layer_falls_back_to_hooks() -> None:
    spec = replace(build_spec("linear", features=(2,), classes=2), layers=(object(),))  # type: ignore[arg-type]
    settings = DpSgdConfig(
        name="dp_sgd", optimizer="sgd", learning_rate=1.0, momentum=0.0, weight_decay=0.0, schedule="constant",
        batch_size=1, epochs=1, max_physical_batch=1, grad_sample="auto",
    )  # fmt: skip
    assert choose(settings, spec) == "hooks"
    with pytest.raises(UserError, match=r"pipeline.grad_sample=book_keeping does not know every layer of model=linear"):
        choose(settings.model_copy(update={"grad_sample": "book_keeping"}), spec)


def test_a_noised_sum_lies_on_the_grid_of_its_noise() -> None:
    stddev = 0.7
    sums = torch.tensor([0.0, 1e-9, 0.123456789, -5.0, 1.0 + 2.0**-23])
    noise = torch.linspace(-3, 3, 5, dtype=torch.float64)
    exact = sums.double() + stddev * noise
    released = noised(sums, noise.clone(), stddev).double()
    assert torch.equal(torch.round(released / noise_grid(stddev)) * noise_grid(stddev), released)
    assert float((released - exact).abs().max()) <= noise_grid(stddev)
    assert torch.equal(noised(sums, noise.clone(), 0.0), sums)
