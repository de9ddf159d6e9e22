"""The architecture in TensorFlow: a pure function of weights and inputs, and the fitted model made of it."""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.engines.federated.engine import tf
from pipelines.engines.interface import Inputs, Labels, Logits
from pipelines.model.spec import Conv, Dense, MaxPool, ModelSpec, Relu, Reshape, Tanh, Weights

BATCH = 4096


@tf.autograph.experimental.do_not_convert  # plain Python over layers, which AutoGraph cannot parse
def forward(spec: ModelSpec, weights: Sequence[Any], inputs: Any) -> Any:
    """Maps inputs to logits.

    Args:
      spec: the architecture.
      weights: tensors or variables in the spec's order and layout, which is TensorFlow's own.
      inputs: float32 tensor, shape (n, *features).

    Returns:
      float32 tensor, shape (n, classes).
    """
    values, remaining = inputs, iter(weights)
    for layer in spec.layers:
        match layer:
            case Conv():
                # Zeros on both sides, as in PyTorch; TensorFlow's "SAME" would put an odd zero on the far side.
                height, width = layer.padding
                padded = tf.pad(values, [[0, 0], [height, height], [width, width], [0, 0]])
                values = tf.nn.bias_add(tf.nn.conv2d(padded, next(remaining), layer.stride, "VALID"), next(remaining))
            case MaxPool():
                values = tf.nn.max_pool2d(values, layer.window, layer.stride, "VALID")
            case Tanh():
                values = tf.tanh(values)
            case Relu():
                values = tf.nn.relu(values)
            case Reshape():
                values = tf.reshape(values, [-1, *layer.shape])
            case Dense():
                values = tf.nn.bias_add(tf.matmul(values, next(remaining)), next(remaining))
    return values


@tf.autograph.experimental.do_not_convert
def mean_cross_entropy(logits: Any, labels: Any, sample_weight: Any = None) -> Any:
    """Softmax cross-entropy, averaged over the batch.

    Args:
      logits: float32 tensor, shape (n, classes).
      labels: int32 tensor, shape (n,).
      sample_weight: part of TFF's signature; not used.
    """
    del sample_weight
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


@lru_cache(maxsize=16)
def compiled_forward(spec: ModelSpec) -> Any:
    """Returns `forward` of one architecture as a tf.function of (weights, inputs), traced once for any batch size."""
    weights = [tf.TensorSpec(shape, tf.float32) for shape in spec.weight_shapes()]
    inputs = tf.TensorSpec([None, *spec.features], tf.float32)
    return tf.function(partial(forward, spec), input_signature=[weights, inputs])


@lru_cache(maxsize=16)
def _gradient(spec: ModelSpec) -> Any:
    """Returns the gradient of one example's cross-entropy as a tf.function of float64 (weights, inputs) and labels."""

    def gradient(weights: Any, inputs: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = mean_cross_entropy(forward(spec, weights, inputs), labels)
        return tape.gradient(loss, weights)

    tensors = [tf.TensorSpec(shape, tf.float64) for shape in spec.weight_shapes()]
    signature = [tensors, tf.TensorSpec([1, *spec.features], tf.float64), tf.TensorSpec([1], tf.int64)]
    return tf.function(gradient, input_signature=signature, autograph=False)


class TensorFlowModel:
    """A `FittedModel` over weights that nothing else may change.

    Attributes:
      framework: names the engine.
      spec: the architecture.
    """

    framework: Literal["pytorch", "tensorflow"] = "tensorflow"

    def __init__(self, spec: ModelSpec, weights: Weights) -> None:
        """Takes ownership of `weights`, float32, in the spec's order and layout."""
        self.spec = spec
        self._weights = weights

    def logits(self, inputs: Inputs) -> Logits:
        """Maps inputs, shape (n, *features), to logits, float32, shape (n, classes)."""
        weights = [tf.constant(value) for value in self._weights]
        call = compiled_forward(self.spec)
        batches = [call(weights, inputs[at : at + BATCH]).numpy() for at in range(0, len(inputs), BATCH)]
        return np.concatenate(batches) if batches else np.zeros((0, self.spec.classes), np.float32)

    def weights(self) -> Weights:
        """Returns copies of the weights in the spec's order and layout."""
        return [value.copy() for value in self._weights]

    def example_gradients(self, weights: Weights, inputs: Inputs, labels: Labels) -> NDArray[np.float64]:
        """Differentiates each example alone, in float64; see `FittedModel`."""
        tensors, differentiate = [tf.constant(value, tf.float64) for value in weights], _gradient(self.spec)
        rows = [
            np.concatenate([np.ravel(part) for part in differentiate(tensors, example[None], [label])])
            for example, label in zip(inputs.astype(np.float64), labels, strict=True)
        ]
        return np.array(rows).reshape(len(inputs), -1)

    def native(self) -> Any:
        """Returns a tf.Module, float32 (n, *features) -> (n, classes), with a signature fit for a saved model."""
        return _module(self.spec, self._weights)


def _module(spec: ModelSpec, weights: Weights) -> Any:
    class FeedForward(tf.Module):
        """The classifier with variables of its own."""

        def __init__(self) -> None:
            super().__init__()
            self.variables_in_order = [tf.Variable(value) for value in weights]

        @tf.function(input_signature=[tf.TensorSpec([None, *spec.features], tf.float32)])
        def __call__(self, x: Any) -> Any:
            return forward(spec, self.variables_in_order, x)

    return FeedForward()
