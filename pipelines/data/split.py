"""One part of a dataset: inputs and labels."""

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
