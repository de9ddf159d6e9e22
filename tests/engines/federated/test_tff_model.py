"""The architecture in TensorFlow against hand-worked numbers."""

import numpy as np
import pytest

from pipelines.engines.federated.engine import tf
from pipelines.engines.federated.tff_model import TensorFlowModel, mean_cross_entropy
from pipelines.model.spec import Conv, ModelSpec, build_spec, initial_weights


def test_linear_logits_are_an_affine_map() -> None:
    spec = build_spec("linear", features=(2,), classes=2)
    model = TensorFlowModel(spec, [np.array([[1, 2], [3, 4]], np.float32), np.array([10, 20], np.float32)])
    np.testing.assert_array_equal(model.logits(np.array([[1, 1], [0, 2]], np.float32)), [[14, 26], [16, 28]])


def test_mlp_logits_agree_with_numpy() -> None:
    spec = build_spec("mlp", features=(4, 2, 1), classes=3, widths=(5,))
    first, first_bias, last, last_bias = weights = initial_weights(spec, np.random.default_rng(0))
    first_bias += 0.5
    inputs = np.random.default_rng(1).normal(size=(7, 4, 2, 1)).astype(np.float32)
    expected = np.tanh(inputs.reshape(7, 8) @ first + first_bias) @ last + last_bias
    np.testing.assert_allclose(TensorFlowModel(spec, weights).logits(inputs), expected, atol=1e-6)


def test_convolution_pads_both_sides_with_zeros() -> None:
    # A row of four ones, kernel of three ones, stride 2, one zero on both sides: sums 0+1+1 and 1+1+1.
    layer = Conv(channels_in=1, filters=1, kernel=(1, 3), stride=(1, 2), padding=(0, 1))
    spec = ModelSpec(name="cnn", features=(1, 4, 1), classes=1, layers=(layer,))
    model = TensorFlowModel(spec, [np.ones((1, 3, 1, 1), np.float32), np.zeros(1, np.float32)])
    np.testing.assert_array_equal(model.native()(np.ones((1, 1, 4, 1), np.float32)).numpy().ravel(), [2, 3])


@pytest.mark.parametrize("features", [(28, 28, 1), (8, 8, 1), (64,), (3, 3, 2)])
def test_cnn_takes_any_image(features: tuple[int, ...]) -> None:
    spec = build_spec("cnn", features=features, classes=10)
    model = TensorFlowModel(spec, initial_weights(spec, np.random.default_rng(0)))
    inputs = np.random.default_rng(1).random((5, *features), np.float32)
    assert model.logits(inputs).shape == (5, 10)
    assert model.logits(inputs[:0]).shape == (0, 10)
    np.testing.assert_allclose(model.native()(inputs), model.logits(inputs), atol=1e-6)


def test_weights_are_copies() -> None:
    spec = build_spec("linear", features=(2,), classes=2)
    model = TensorFlowModel(spec, initial_weights(spec, np.random.default_rng(0)))
    model.weights()[0][:] = 9
    model.native().variables_in_order[0].assign_add(tf.ones((2, 2)))
    assert not model.weights()[0].any()


def test_loss_is_the_mean_over_the_batch() -> None:
    logits = np.array([[0, 0], [np.log(3), 0]], np.float32)
    expected = (np.log(2) + np.log(4 / 3)) / 2
    np.testing.assert_allclose(mean_cross_entropy(logits, np.array([1, 0], np.int32)), expected, rtol=1e-6)


def test_useless_advice_of_tensorflow_stays_out_of_results(caplog: pytest.LogCaptureFixture) -> None:
    def traced(value: object) -> object:
        return value

    for _ in range(8):  # as models of a sweep that come to lie at one address
        tf.function(traced)(tf.constant(1))
    tf.get_logger().error("something else")
    assert caplog.messages == ["something else"]
