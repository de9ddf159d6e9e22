"""Random Fourier features: a linear model on them is a Gaussian kernel machine."""

from math import pi, prod, sqrt

import numpy as np
from numpy.typing import NDArray

SEED = 2007  # the same directions in every run, independent of the data


class RandomFourier:
    """Maps x to sqrt(2) cos(x W / (bandwidth |x|) + b). W (normal) and b (uniform) are drawn once.

    The mean product of two examples' features tends to exp(-|u - v|^2 / (2 bandwidth^2)) for their directions u and v.
    Each feature has mean square 1, so that an example's length is about the square root of their number.

    Source: Rahimi & Recht 2007, "Random Features for Large-Scale Kernel Machines", section 3.

    Attributes:
      shape: of one example's features: (count,).
    """

    def __init__(self, features: tuple[int, ...], *, count: int, bandwidth: float) -> None:
        """Draws directions and phases from a public constant.

        Args:
          features: shape of one input.
          count: of features.
          bandwidth: of the kernel, as a distance between directions: two at right angles are sqrt(2) apart.
        """
        stream = np.random.default_rng(SEED)
        self._directions = stream.standard_normal((prod(features), count), dtype=np.float32) / np.float32(bandwidth)
        self._phases = stream.uniform(0, 2 * pi, count).astype(np.float32)
        self.shape = (count,)

    def __call__(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps float32 (n, ...) to float32 (n, count); an input of length 0 maps to sqrt(2) cos(b)."""
        flat = inputs.reshape(len(inputs), -1)
        lengths = np.linalg.norm(flat, axis=1, keepdims=True)
        angles = (flat / np.maximum(lengths, np.float32(1e-12))) @ self._directions + self._phases
        return np.asarray(np.float32(sqrt(2)) * np.cos(angles))
