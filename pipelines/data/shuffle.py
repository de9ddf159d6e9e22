"""A fixed public order, which chooses a split or a subset without looking at the data."""

import numpy as np
from numpy.typing import NDArray

PUBLIC_SEED = 20170601


def public_order(count: int) -> NDArray[np.int64]:
    """Returns the same permutation of 0..count-1 on every machine and under every seed of a run.

    numpy promises that the streams of RandomState never change (NEP 19). Streams of Generator may change. A split
    that changes with a numpy release would invalidate every published number.
    """
    return np.random.RandomState(PUBLIC_SEED).permutation(count).astype(np.int64)
