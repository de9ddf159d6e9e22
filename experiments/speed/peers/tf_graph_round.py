"""FedAvg as one bare TensorFlow graph a round, without TFF: the bound for any TensorFlow engine."""

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
import tensorflow as tf
import work

SHAPES = [(8, 8, 1, 16), (16,), (4, 4, 16, 32), (32,), (512, 32), (32,), (32, 10), (10,)]
RATE, PARALLEL = 0.1, 4


def starting_weights(rng):
    """Glorot uniform kernels and zero biases."""
    weights = []
    for shape in SHAPES:
        limit = np.sqrt(6 / (np.prod(shape[:-2], dtype=int) * sum(shape[-2:]))) if len(shape) > 1 else 0.0
        weights.append(rng.uniform(-limit, limit, shape).astype(np.float32))
    return weights


def forward(weights, images):
    """Maps (n, 28, 28, 1) to logits (n, 10)."""
    values = tf.pad(images, [[0, 0], [3, 3], [3, 3], [0, 0]])
    for kernel, bias in (weights[0:2], weights[2:4]):
        values = tf.nn.max_pool2d(tf.tanh(tf.nn.conv2d(values, kernel, 2, "VALID") + bias), 2, 1, "VALID")
    hidden = tf.tanh(tf.matmul(tf.reshape(values, [-1, 512]), weights[4]) + weights[5])
    return tf.matmul(hidden, weights[6]) + weights[7]


def local_update(start, images, labels, batch):
    """One epoch of SGD on a client's (n, 28, 28, 1) images in order; returns the change of the weights."""
    weights = start
    for at in range(0, images.shape[0], batch):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            logits = forward(weights, images[at : at + batch])
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels[at : at + batch], logits)
            loss = tf.reduce_mean(losses)
        weights = [w - RATE * g for w, g in zip(weights, tape.gradient(loss, weights), strict=True)]
    return [after - before for after, before in zip(weights, start, strict=True)]


def build_round(cohort, size, batch):
    """Returns a compiled round: (weights, images (cohort, size, 28, 28, 1), labels (cohort, size)) -> weights."""
    signature = [
        [tf.TensorSpec(shape, tf.float32) for shape in SHAPES],
        tf.TensorSpec([cohort, size, 28, 28, 1], tf.float32),
        tf.TensorSpec([cohort, size], tf.int32),
    ]

    @tf.function(input_signature=signature)
    def run(weights, images, labels):
        updates = tf.map_fn(
            lambda client: local_update(weights, client[0], client[1], batch), (images, labels),
            fn_output_signature=[tf.TensorSpec(shape, tf.float32) for shape in SHAPES], parallel_iterations=PARALLEL,
        )  # fmt: skip
        return [weight + tf.reduce_mean(update, 0) for weight, update in zip(weights, updates, strict=True)]

    return run


def main():
    options = work.read_options()
    tf.config.threading.set_intra_op_parallelism_threads(1)  # clients run in parallel; their operations are small
    tf.config.threading.set_inter_op_parallelism_threads(options["threads"])
    data, rng = work.Mnist(options["data"]), np.random.default_rng(0)
    size = data.clients.shape[1]
    labels, weights, seconds = data.labels.astype(np.int32), starting_weights(rng), []
    run = build_round(options["cohort"], size, options["batch"])
    for _ in range(options["rounds"]):
        start = time.perf_counter()
        cohort = rng.choice(len(data.clients), options["cohort"], replace=False)
        index = rng.permuted(data.clients[cohort], axis=1)
        weights = [value.numpy() for value in run(weights, data.images[index], labels[index])]
        seconds.append(time.perf_counter() - start)
    work.report_rounds(seconds, warm=2, examples=options["cohort"] * size)


if __name__ == "__main__":
    main()
