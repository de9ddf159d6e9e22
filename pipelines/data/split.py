"""One part of a dataset: inputs and labels, and the public order that `dataset.limit` keeps."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Split:
    """Inputs and labels of one split.

    Attributes:
      inputs: float32, shape (n, height, width, channels), images in [0, 1], or (n, features).
      labels: int64, shape (n,).
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


PUBLIC_SEED = 20170601


def public_order(count: int) -> NDArray[np.int64]:
    """Returns the same permutation of 0..count-1 on every machine and under every seed of a run.

    numpy promises that the streams of RandomState never change (NEP 19). Streams of Generator may change. A split
    that changes with a numpy release would invalidate every published number.
    """
    return np.random.RandomState(PUBLIC_SEED).permutation(count).astype(np.int64)
