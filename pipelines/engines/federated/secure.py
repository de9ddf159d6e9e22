"""The sums of secure aggregation in TFF: values are bounded, rounded to 32-bit integers, and summed as integers.

`tff.aggregators.SecureSumFactory` cuts each coordinate to public bounds [-b, b] and rounds it to one of 2^32 points,
whose distance is 2b / (2^32 - 1). `federated_secure_sum_bitwidth` sums the integers. A zero stays exactly zero. The
cryptographic protocol is missing: TFF's local runtime has none. Its compiler replaces the intrinsic by a plain sum of
the same integers, which also checks that none exceeds its bit width.

Source: Bonawitz et al. 2017, doi:10.1145/3133956.3133982 (the protocol that is not run here).
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

import numpy as np

from pipelines.engines.federated.engine import tf, tff

POINTS = 2**32 - 1
# Several times the relative error that float32 may add to a clipped norm.
FLOAT_SLACK = 2.0**-20


@dataclass(frozen=True, kw_only=True)
class SumBounds:
    """Public bounds of what a client sends without privacy.

    Attributes:
      change: largest absolute change of any weight of the model, > 0.
      weight: largest weight of a client in the mean, >= 1.
    """

    change: float
    weight: int

    @classmethod
    def of(cls, change: float, largest: int) -> "SumBounds":
        """Rounds the largest client's weight up to a power of two less one, so that partitions share a graph."""
        return cls(change=change, weight=(1 << largest.bit_length()) - 1)


def tightened(clip_norm: float, specs: Sequence[Any]) -> float:
    """Returns a smaller clip norm, so that rounding cannot lift a clipped norm above `clip_norm`.

    Each coordinate moves by at most half a point's distance, clip_norm / (2^32 - 1), and a vector of d coordinates by
    sqrt(d) times that. The sensitivity of the rounded sum is then at most `clip_norm`, as the noise assumes.

    Args:
      clip_norm: L2 bound of one user's rounded contribution.
      specs: tf.TensorSpec of each tensor that a user sends.
    """
    coordinates = sum(prod(spec.shape) for spec in specs)
    return clip_norm * (1 - sqrt(coordinates) / POINTS - FLOAT_SLACK)


class SecureWeightedSum(tff.aggregators.UnweightedAggregationFactory):
    """Sums what clients of `fed_avg` send: weighted deltas as points within bounds, the rest as small integers.

    It counts the clients with a coordinate that was cut at the upper bound, and at the lower bound.
    """

    def __init__(self, bounds: SumBounds) -> None:
        """Makes the sums of points and of integers."""
        self._points = tff.aggregators.SecureSumFactory(float(bounds.change * bounds.weight))
        self._integers = tff.aggregators.SecureSumFactory(bounds.weight, 0)

    def create(self, value_type: Any) -> tff.templates.AggregationProcess:
        """Returns the process for values with `delta`, `weight` and `finite`, the latter two whole float32 numbers."""
        points = self._points.create(value_type.delta)
        to_integer, to_float = (_cast(source, target) for source, target in _BOTH_WAYS)
        integers = self._integers.create(tff.types.to_type(OrderedDict(weight=np.int32, finite=np.int32)))

        @tff.federated_computation
        def initialize() -> Any:
            return tff.federated_zip((points.initialize(), integers.initialize()))

        @tff.federated_computation(initialize.type_signature.result, tff.FederatedType(value_type, tff.CLIENTS))
        def next_sum(state: Any, value: Any) -> Any:
            counts = OrderedDict(weight=value.weight, finite=value.finite)
            whole = tff.federated_map(to_integer, tff.federated_zip(counts))
            delta, count = points.next(state[0], value.delta), integers.next(state[1], whole)
            total = tff.federated_map(to_float, count.result)
            return tff.templates.MeasuredProcessOutput(
                tff.federated_zip((delta.state, count.state)),
                tff.federated_zip(OrderedDict(delta=delta.result, weight=total.weight, finite=total.finite)),
                delta.measurements,
            )

        return tff.templates.AggregationProcess(initialize, next_sum)


_BOTH_WAYS = ((np.float32, np.int32), (np.int32, np.float32))


def _cast(source: type, target: type) -> Any:
    @tff.tensorflow.computation(tff.types.to_type(OrderedDict(weight=source, finite=source)))
    def cast(counts: Any) -> Any:
        return OrderedDict((name, tf.cast(value, target)) for name, value in counts.items())

    return cast
