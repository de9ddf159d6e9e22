"""Clipping in both engines: the largest allowed value of a user's update, and the adaptive clip norm."""

from math import exp

import numpy as np

from pipelines.privacy.mechanisms.base import AdaptiveClipping
from pipelines.privacy.noise_grid import noise_grid

# Each coordinate of a user's update is cut at this value. Otherwise the square of its norm could overflow float32, the
# clip would return NaN, and a single user could destroy the noised sum of a round.
PRIVATE_REACH = 1e15


def next_clip_norm(
    clip_norm: float,
    adaptive: AdaptiveClipping,
    *,
    units: int,
    clipped: int,
    expected_batch_size: float,
    rng: np.random.Generator,
) -> float:
    """Moves a clip norm towards the target quantile of the norms, by a noised count of unclipped units.

    Each unit counts 1/2 or, if it was clipped, -1/2. The noised sum is divided by a public constant, and the resulting
    share is limited to [0, 1]. This is `gaussian_adaptive` of TFF, which centres counts so that one unit moves them by
    1/2 and not by 1.

    Args:
      clip_norm: clip norm of this step, > 0.
      adaptive: target, rate and noise of the count.
      units: number of units in the sample. This includes the units that were left out because their update was not
        finite: they contribute zero, which is within every norm.
      clipped: number of units whose norm exceeded the clip norm.
      expected_batch_size: of the plan.
      rng: the run's private stream of noise; one draw.

    Returns:
      The clip norm of the next step. It follows from a noised count alone, so it is as public as the weights.

    Source: Andrew et al. 2021, arXiv:1905.03871, algorithm 1; `QuantileEstimatorQuery` of tensorflow_privacy.
    """
    count = units / 2 - clipped + adaptive.count_stddev * rng.standard_normal()
    if grid := noise_grid(adaptive.count_stddev):
        count = grid * round(count / grid)
    share = min(1.0, max(0.0, count / expected_batch_size + 0.5))
    return clip_norm * exp(-adaptive.learning_rate * (share - adaptive.target_quantile))
