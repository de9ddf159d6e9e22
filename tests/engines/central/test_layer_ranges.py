"""Private steps over the ranges of layers on which Opacus tries its per-example gradients: right, or refused.

Ranges of `conv2d_test.py` and `linear_test.py`: samples of 0 to 4, images of 11 to 17 pixels, 1, 3 or 32 channels that
double or halve, kernels of 2 to 4, strides of 1 and 2, no padding, 2, or as much as keeps the size. A `ModelSpec` has
no dilation, no groups and no padding by name.
"""

from math import prod
from shutil import which

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from pipelines.config.schema import parse
from pipelines.core.errors import UserError
from pipelines.engines.central import compiled, gradients
from pipelines.engines.central.compiled import kernel_layers
from pipelines.engines.central.gradients import private_gradients
from pipelines.engines.central.training import Hardware, TrainState
from pipelines.engines.interface import TrainingData
from pipelines.model.spec import Conv, Dense, Layer, MaxPool, ModelSpec, Relu, Reshape, Tanh, initial_weights, positions
from pipelines.privacy.mechanisms.base import PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism
from tests.config.test_schema import composed

from .conftest import plain_dp_sgd

CLIP_NORM = 0.5
SAME = {2: 1, 3: 1, 4: 2}  # padding on both sides, so that an even kernel makes an image one pixel larger


def convolving(*shape: int, filters: int, kernel: int, stride: int, padding: int, active: Layer) -> ModelSpec:
    """One convolution of that make, a pool and a dense layer on images (height, width, channels)."""
    sides = [positions(positions(side, kernel, stride, padding), 2) for side in shape[:2]]
    flat = prod(sides) * filters
    conv = Conv(shape[2], filters, (kernel, kernel), (stride, stride), (padding, padding))
    layers = (conv, active, MaxPool((2, 2)), Reshape((flat,)), Dense(flat, 3))
    return ModelSpec(name="cnn", features=shape, classes=3, layers=layers)


def require_right(spec: ModelSpec, n: int, seed: int, mode: str) -> None:
    """A step at rate 1 without noise is minus the sum of clipped gradients, by the definition.

    Half of the examples are beyond the clip norm.
    """
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(n + 2, *spec.features)).astype(np.float32)
    inputs[::2] *= 1e-3
    data = TrainingData(
        inputs=inputs, labels=rng.integers(0, 3, n + 2), partition=None, spec=spec,
        initial_weights=initial_weights(spec, rng),
    )  # fmt: skip
    plan = PoissonGaussianMechanism(
        unit=PrivacyUnit.EXAMPLE, population=1, sampling_probability=1.0, steps=1, noise_multiplier=0.0,
        clip_norm=CLIP_NORM, delta=1e-3,
    )  # fmt: skip
    state = TrainState.of(data, Hardware(device="cpu", threads=1), contiguous=mode != "book_keeping")
    parameters, sample = list(state.module.parameters()), torch.arange(1, n + 1)
    start = [parameter.detach().clone() for parameter in parameters]
    expected = [torch.zeros_like(parameter) for parameter in parameters]
    for k in sample:
        loss = cross_entropy(state.module(state.inputs[k][None]), state.labels[k][None])
        own = torch.autograd.grad(loss, parameters)
        factor = CLIP_NORM / max(CLIP_NORM, float(torch.stack([part.square().sum() for part in own]).sum().sqrt()))
        torch._foreach_add_(expected, own, alpha=factor)
    way = private_gradients(mode, state, spec, plain_dp_sgd(batch_size=1), plan, rng)  # type: ignore[arg-type]
    assert way.facts["grad_sample"] == mode
    way.step(sample)
    for before, now, total in zip(start, parameters, expected, strict=True):
        assert (before - now.detach()).numpy() == pytest.approx(total.numpy(), rel=1e-3, abs=1e-5)


images = st.tuples(st.integers(11, 17), st.integers(11, 17), st.sampled_from([1, 3, 32]))


@pytest.mark.parametrize("mode", ["book_keeping", "hooks"])
@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(0, 4), shape=images, wider=st.booleans(), kernel=st.integers(2, 4), stride=st.integers(1, 2),
    padding=st.sampled_from([0, 2, "same"]), active=st.sampled_from([Tanh(), Relu()]), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_convolution_of_any_make_is_clipped_right(
    mode: str, n: int, shape: tuple[int, int, int], wider: bool, kernel: int, stride: int, padding: int | str,
    active: Layer, seed: int,
) -> None:  # fmt: skip
    channels = shape[2]
    around = SAME[kernel] if isinstance(padding, str) else padding
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradients, "compiled_sums", lambda *_: None)
        spec = convolving(
            *shape, filters=2 * channels if wider else max(1, channels // 2), kernel=kernel, stride=stride,
            padding=around, active=active,
        )  # fmt: skip
        require_right(spec, n, seed, mode)


@pytest.mark.skipif(not any(map(which, compiled.COMPILERS)), reason="no C++ compiler on this machine")
@pytest.mark.parametrize(
    ("shape", "make"),
    [
        ((11, 17, 1), {"filters": 16, "kernel": 2, "stride": 1, "padding": 0, "active": Tanh()}),
        ((14, 12, 3), {"filters": 32, "kernel": 4, "stride": 2, "padding": 2, "active": Relu()}),
        ((13, 11, 32), {"filters": 16, "kernel": 3, "stride": 2, "padding": 1, "active": Relu()}),
        ((17, 16, 32), {"filters": 64, "kernel": 3, "stride": 1, "padding": 2, "active": Tanh()}),
    ],
    ids=str,
)
def test_the_kernel_clips_right_whatever_the_convolution(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object, shape: tuple[int, ...], make: dict[str, object]
) -> None:
    monkeypatch.setenv("PIPELINES_CACHE", str(tmp_path))
    spec = convolving(*shape, **make)  # type: ignore[arg-type]
    assert kernel_layers(spec) is not None
    monkeypatch.delattr(gradients, "BookKeeping")  # nothing else computes it
    for n in range(5):
        require_right(spec, n, seed=n, mode="book_keeping")


@pytest.mark.parametrize("mode", ["book_keeping", "hooks"])
@settings(max_examples=20, deadline=None)
@given(n=st.integers(0, 4), features=st.integers(10, 17), dims=st.integers(1, 3), seed=st.integers(0, 99))
def test_a_dense_layer_of_any_size_is_clipped_right(mode: str, n: int, features: int, dims: int, seed: int) -> None:
    shape = ((features,), (2, features, 1), (2, 3, features))[dims - 1]
    flat = prod(shape)
    layers: tuple[Layer, ...] = (Reshape((flat,)), Dense(flat, features + 2), Tanh(), Dense(features + 2, 3))
    require_right(ModelSpec(name="mlp", features=shape, classes=3, layers=layers), n, seed, mode)


@pytest.mark.parametrize("asked", ["dilation=2", "groups=3", "padding=same"])
def test_what_no_model_has_is_refused_in_one_line(asked: str) -> None:
    values = composed("model=cnn", f"+model.{asked}")
    with pytest.raises(UserError, match=rf"^model\.{asked}: .*$"):
        parse(values)
