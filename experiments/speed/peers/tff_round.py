"""FedAvg with stock `tff.learning`: a Keras model, a functional model, or that with the fastest stock loop."""

import collections
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
import work

SPEC = collections.OrderedDict(x=tf.TensorSpec([None, 28, 28, 1]), y=tf.TensorSpec([None], tf.int32))


def keras_cnn():
    layer = tf.keras.layers
    return tf.keras.Sequential([
        layer.InputLayer((28, 28, 1)), layer.ZeroPadding2D(3),
        layer.Conv2D(16, 8, 2, activation="tanh"), layer.MaxPool2D(2, 1),
        layer.Conv2D(32, 4, 2, activation="tanh"), layer.MaxPool2D(2, 1),
        layer.Flatten(), layer.Dense(32, activation="tanh"), layer.Dense(10),
    ])  # fmt: skip


def loss():
    return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def variable_model():
    return tff.learning.models.from_keras_model(keras_cnn(), input_spec=SPEC, loss=loss())


def build_process(variant):
    model, options = variable_model, {}
    if variant != "keras":
        model = tff.learning.models.functional_model_from_keras(keras_cnn(), loss_fn=loss(), input_spec=SPEC)
    if variant == "iterator":
        options["loop_implementation"] = tff.learning.LoopImplementation.DATASET_ITERATOR
    return tff.learning.algorithms.build_weighted_fed_avg(
        model, client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.1),
        server_optimizer_fn=tff.learning.optimizers.build_sgdm(1.0), **options,
    )  # fmt: skip


def main():
    options = work.read_options()
    data, process, rng = work.Mnist(options["data"]), build_process(options["variant"]), np.random.default_rng(0)
    labels, state, seconds = data.labels.astype(np.int32), process.initialize(), []
    for _ in range(options["rounds"]):
        start = time.perf_counter()
        cohort = rng.choice(len(data.clients), options["cohort"], replace=False)
        datasets = []
        for client in cohort:
            index = rng.permutation(data.clients[client])
            arrays = collections.OrderedDict(x=data.images[index], y=labels[index])
            datasets.append(tf.data.Dataset.from_tensor_slices(arrays).batch(options["batch"]))
        state = process.next(state, datasets).state
        seconds.append(time.perf_counter() - start)
    work.report_rounds(seconds, warm=2, examples=options["cohort"] * data.clients.shape[1])


main()
