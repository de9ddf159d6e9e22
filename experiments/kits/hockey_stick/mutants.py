"""Three privacy bugs for each engine, patched into the running program."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

BUGS = ("noise at half scale", "no clipping", "clipping of each tensor alone")


@contextmanager
def planted(engine: str, bug: str) -> Iterator[None]:
    """Runs a block with a bug.

    Args:
      engine: dp_sgd or dp_fed_avg.
      bug: one of `BUGS`.
    """
    owner, name, changed = (_central if engine == "dp_sgd" else _federated)(bug)
    with _fresh_graphs(engine), _untried(engine), patch.object(owner, name, changed):
        yield


@contextmanager
def _untried(engine: str) -> Iterator[None]:
    """Lets wrong clipped sums train: without this, the trial of clipped sums would replace them."""
    if engine != "dp_sgd":
        yield
        return
    from pipelines.engines.central import gradients

    with patch.object(gradients, "require_sound", lambda *_: None):
        yield


@contextmanager
def _fresh_graphs(engine: str) -> Iterator[None]:
    """Clears traced graphs of TensorFlow, which would keep the code that they were traced with."""
    if engine == "dp_sgd":
        yield
        return
    from pipelines.engines.federated import fast

    fast.build_process.cache_clear()
    try:
        yield
    finally:
        fast.build_process.cache_clear()


def _central(bug: str) -> tuple[Any, str, Callable[..., Any]]:
    import torch

    from pipelines.engines.central import gradients

    noise, sums = gradients.KeyedOptimizer.add_noise, gradients.clipped_sums

    def half(self: gradients.KeyedOptimizer) -> None:
        kept = self.noise_multiplier
        self.noise_multiplier = kept / 2
        noise(self)
        self.noise_multiplier = kept

    def unclipped(layers: Any, clip_norm: float, *batch: Any) -> Any:
        return sums(layers, 1e12, *batch)

    def by_tensor(layers: Any, clip_norm: float, weights: Any, inputs: Any, labels: Any) -> Any:
        totals, squared = sums(layers, clip_norm, weights, inputs, labels)
        totals = [torch.zeros_like(total) for total in totals]
        for example, label in zip(inputs.split(1), labels.split(1), strict=True):
            raw, _ = sums(layers, 1e12, weights, example, label)
            for total, tensor in zip(totals, raw, strict=True):
                total += tensor * min(1.0, clip_norm / float(tensor.norm()))
        return totals, squared

    if bug == BUGS[0]:
        return gradients.KeyedOptimizer, "add_noise", half
    return gradients, "clipped_sums", unclipped if bug == BUGS[1] else by_tensor


def _federated(bug: str) -> tuple[Any, str, Callable[..., Any]]:
    from pipelines.engines.federated import tff_noise as noise
    from pipelines.engines.federated.engine import tf

    normal = noise.stateless_normal

    def half(shape: Any, key: Any) -> Any:
        values, after = normal(shape, key)
        return values / 2, after

    def unclipped(self: Any, clip_norm: Any, record: Any) -> Any:
        return record, tf.constant(0.0)

    def by_tensor(self: Any, clip_norm: Any, record: Any) -> Any:
        return tf.nest.map_structure(lambda tensor: tf.clip_by_norm(tensor, clip_norm), record), tf.constant(0.0)

    if bug == BUGS[0]:
        return noise, "stateless_normal", half
    return noise.KeyedSum, "preprocess_record_impl", unclipped if bug == BUGS[1] else by_tensor
