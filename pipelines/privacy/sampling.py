"""The sampler that the accounting assumes."""

import numpy as np
from numpy.typing import NDArray


def poisson_sample(units: int, q: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Includes each of `units` independently with probability `q`.

    Args:
      units: number of units present, which may differ from the public population.
      q: sampling probability, in (0, 1].
      rng: the run's private stream.

    Returns:
      Sorted indices, int64, of any length from 0 to `units`.
    """
    return np.flatnonzero(rng.random(units) < q)
