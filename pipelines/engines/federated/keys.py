"""Normal noise from keys of 128 bits: see `pipelines.engines.federated.tff_noise` for why."""

from typing import Any

from pipelines.engines.federated.engine import tf

DRAWS = 2  # summed into one noise


def stateless_normal(shape: Any, key: Any) -> tuple[Any, Any]:
    """Draws standard normal numbers; returns them and the key of the next tensor."""
    draws = [tf.random.stateless_normal(shape, key + tf.constant([0, i], tf.int64), alg="philox") for i in range(DRAWS)]
    return tf.add_n(draws) / DRAWS**0.5, key_after(key, tensors=1)


def key_after(key: Any, *, tensors: int) -> Any:
    """Returns the key after the noise for that many tensors."""
    return key + tf.constant([0, DRAWS * tensors], tf.int64)
