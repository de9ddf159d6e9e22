"""Optimizers of clients and server by name, and one that keeps weights near their start (FedProx, privacy)."""

from collections import OrderedDict
from typing import Any

from pipelines.core.errors import UserError
from pipelines.engines.federated.engine import tf, tff


def build_optimizer(name: str, learning_rate: float, momentum: float, side: str) -> tff.learning.optimizers.Optimizer:
    """Returns TFF's optimizer of that name.

    Args:
      name: sgd, adam, adagrad or yogi.
      learning_rate: > 0.
      momentum: momentum of sgd, in [0, 1).
      side: client or server, for the error.

    Raises:
      UserError: a momentum that the optimizer would ignore, or an unknown name.
    """
    if name != "sgd" and momentum > 0:
        raise UserError(
            f"pipeline.{side}_momentum={momentum:g} is for pipeline.{side}_optimizer=sgd; "
            f"{name} brings its own: set pipeline.{side}_momentum=0"
        )
    match name:
        case "sgd":
            return tff.learning.optimizers.build_sgdm(learning_rate, momentum or None)
        case "adam":
            return tff.learning.optimizers.build_adam(learning_rate)
        case "adagrad":
            return tff.learning.optimizers.build_adagrad(learning_rate)
        case "yogi":
            return tff.learning.optimizers.build_yogi(learning_rate)
    raise UserError(f"pipeline.{side}_optimizer={name} is unknown; choose sgd, adam, adagrad or yogi")


def anchored(
    optimizer: tff.learning.optimizers.Optimizer, *, proximal_strength: float, reach: float | None
) -> tff.learning.optimizers.Optimizer:
    """Keeps local training near the weights that it starts from.

    Adds `proximal_strength * (weights - start)` to every gradient. `tff.learning`'s own FedProx (0.87) adds
    `start - weights`, which drives clients away from the start, so this module has its own.

    Args:
      optimizer: takes the steps.
      proximal_strength: mu of the added mu/2 |weights - start|^2; 0 adds nothing.
      reach: largest change of any coordinate, > 0; None sets no limit. NaN stays NaN.

    Source: Li et al. 2020, arXiv:1812.06127, algorithm 2.
    """
    return _Anchored(optimizer, proximal_strength, reach)


class _Anchored(tff.learning.optimizers.Optimizer):
    """Remembers the first weights that it is given: TFF initialises an optimizer with shapes alone."""

    def __init__(self, inner: Any, proximal_strength: float, reach: float | None) -> None:
        self._inner = inner
        self._proximal_strength = proximal_strength
        self._reach = reach

    def initialize(self, specs: Any) -> Any:
        zeros = tf.nest.map_structure(lambda spec: tf.zeros(spec.shape, spec.dtype), specs)
        return OrderedDict(inner=self._inner.initialize(specs), start=zeros, started=tf.constant(False))

    def next(self, state: Any, weights: Any, gradients: Any) -> Any:
        each = tf.nest.map_structure
        start = each(lambda now, then: tf.where(state["started"], then, now), weights, state["start"])
        if self._proximal_strength > 0:
            gradients = each(lambda g, now, then: g + self._proximal_strength * (now - then), gradients, weights, start)
        inner, weights = self._inner.next(state["inner"], weights, gradients)
        if self._reach is not None:
            reach = self._reach
            weights = each(lambda now, then: tf.clip_by_value(now, then - reach, then + reach), weights, start)
        return OrderedDict(inner=inner, start=start, started=tf.constant(True)), weights
