"""The spec as a PyTorch module."""

import numpy as np
import pytest
import torch

from pipelines.engines.central.torch_model import TorchModel, build_module
from pipelines.model.spec import build_spec, initial_weights


@pytest.mark.parametrize("model", ["linear", "mlp", "cnn"])
@pytest.mark.parametrize("features", [(28, 28, 1), (8, 8, 1), (32, 32, 3), (5, 5, 2), (64,), (3,)])
def test_weights_survive_the_module_in_every_layout(model: str, features: tuple[int, ...]) -> None:
    spec = build_spec(model, features=features, classes=4, widths=(6, 5))  # type: ignore[arg-type]
    weights = initial_weights(spec, np.random.default_rng(0))
    fitted = TorchModel(build_module(spec, weights))
    assert all(np.array_equal(a, b) for a, b in zip(fitted.weights(), weights, strict=True))
    logits = fitted.logits(np.zeros((3, *features), np.float32))
    assert logits.shape == (3, 4)
    assert logits.dtype == np.float32


def test_linear_logits_are_the_matrix_product() -> None:
    spec = build_spec("linear", features=(2, 2, 1), classes=2)
    kernel = np.arange(8, dtype=np.float32).reshape(4, 2)
    fitted = TorchModel(build_module(spec, [kernel, np.array([1, -1], np.float32)]))
    # (1, 2, 3, 4) @ [[0,1],[2,3],[4,5],[6,7]] = (40, 50); plus the bias.
    assert fitted.logits(np.array([[[[1], [2]], [[3], [4]]]], np.float32)).tolist() == [[41.0, 49.0]]


def test_mlp_logits_are_tanh_layers() -> None:
    spec = build_spec("mlp", features=(3,), classes=2, widths=(4,))
    w1, b1, w2, b2 = weights = initial_weights(spec, np.random.default_rng(1))
    inputs = np.random.default_rng(2).normal(size=(5, 3)).astype(np.float32)
    expected = np.tanh(inputs @ w1 + b1) @ w2 + b2
    assert TorchModel(build_module(spec, weights)).logits(inputs) == pytest.approx(expected, abs=1e-6)


def test_convolution_keeps_channels_last_order_into_the_dense_layer() -> None:
    # Written out with torch's functions on explicitly permuted tensors.
    spec = build_spec("cnn", features=(28, 28, 1), classes=10)
    k1, b1, k2, b2, d1, e1, d2, e2 = (torch.from_numpy(w) for w in initial_weights(spec, np.random.default_rng(3)))
    inputs = np.random.default_rng(4).random((2, 28, 28, 1), np.float32)
    pool, conv = torch.nn.functional.max_pool2d, torch.nn.functional.conv2d
    hidden = torch.from_numpy(inputs).permute(0, 3, 1, 2)
    hidden = pool(torch.tanh(conv(hidden, k1.permute(3, 2, 0, 1), b1, stride=2, padding=3)), 2, 1)
    hidden = pool(torch.tanh(conv(hidden, k2.permute(3, 2, 0, 1), b2, stride=2)), 2, 1)
    expected = torch.tanh(hidden.permute(0, 2, 3, 1).flatten(1) @ d1 + e1) @ d2 + e2
    weights = [w.numpy() for w in (k1, b1, k2, b2, d1, e1, d2, e2)]
    assert TorchModel(build_module(spec, weights)).logits(inputs) == pytest.approx(expected.numpy(), abs=1e-5)


def test_comparison_network_has_the_published_size() -> None:
    assert build_spec("cnn", features=(28, 28, 1), classes=10).parameters == 26_010


def test_logits_do_not_depend_on_how_inputs_are_batched() -> None:
    spec = build_spec("mlp", features=(4,), classes=3, widths=(5,))
    fitted = TorchModel(build_module(spec, initial_weights(spec, np.random.default_rng(0))))
    inputs = np.random.default_rng(1).normal(size=(1001, 4)).astype(np.float32)
    assert fitted.logits(inputs)[1000:] == pytest.approx(fitted.logits(inputs[1000:]), abs=1e-6)
