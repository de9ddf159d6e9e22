"""Scattering coefficients of images: fixed wavelets, nothing learned.

Source: Bruna & Mallat 2013, arXiv:1203.1513, as implemented in kymatio; for private training Tramer & Boneh 2021,
arXiv:2011.11660, section 3.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.core.errors import UserError

EPSILON = 1e-5  # of PyTorch's GroupNorm


class Scattering:
    """The scattering transform for images of one shape.

    Attributes:
      shape: of one example's features: (height / 2^scales, width / 2^scales, channels * coefficients).
    """

    def __init__(
        self,
        features: tuple[int, ...],
        *,
        scales: int,
        angles: int,
        groups: int | None,
        rotations: tuple[float, ...] = (0.0,),
    ) -> None:
        """Builds the wavelets.

        Args:
          features: of one image: height, width, channels.
          scales: J; features are averaged over 2^J x 2^J pixels.
          angles: L, of the wavelets.
          groups: of each channel's coefficients, each brought to mean 0 and variance 1 within one image (group
            normalisation without parameters); None leaves them as they are.
          rotations: in degrees, about the centre. The normalised coefficients are averaged over them, so that features
            change little when the image is turned a little.

        Raises:
          UserError: no images, images too small for the scales, or groups that do not divide the coefficients.
        """
        if len(features) != 3:
            raise UserError(f"features=scattering needs images; this dataset has {features[0]} plain features")
        height, width, channels = features
        if min(height, width) < 2 ** (scales + 1):
            raise UserError(
                f"features.scales={scales} is too large for images of {height} x {width}; "
                f"they need at least {2 ** (scales + 1)} pixels a side"
            )
        coefficients = 1 + scales * angles + angles**2 * scales * (scales - 1) // 2
        if groups is not None and coefficients % groups:
            raise UserError(f"features.groups={groups} must divide the {coefficients} coefficients")
        self._transform = _wavelets(height, width, scales, angles)
        self._groups, self._rotations = groups, rotations
        self.shape = (height >> scales, width >> scales, channels * coefficients)

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps images, float32 (n, height, width, channels), to features, float32 (n, *shape)."""
        turned = [self._one(images if angle == 0 else _turned(images, angle)) for angle in self._rotations]
        return turned[0] if len(turned) == 1 else np.mean(turned, axis=0, dtype=np.float32)

    def _one(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        n = len(images)
        scattered = self._transform(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        scattered = scattered.astype(np.float32)  # (n, channels, coefficients, height, width)
        if self._groups is not None:
            grouped = scattered.reshape(n, images.shape[3] * self._groups, -1)
            centred = grouped - grouped.mean(axis=2, keepdims=True)
            scattered = (centred / np.sqrt(centred.var(axis=2, keepdims=True) + EPSILON)).reshape(scattered.shape)
        height, width, _ = self.shape
        return np.ascontiguousarray(scattered.reshape(n, -1, height, width).transpose(0, 2, 3, 1))


def _turned(images: NDArray[np.float32], degrees: float) -> NDArray[np.float32]:
    """Rotates about the centre with linear interpolation; pixels from outside the image are 0."""
    from scipy.ndimage import rotate

    return np.asarray(rotate(images, degrees, axes=(1, 2), reshape=False, order=1), np.float32)


@lru_cache(maxsize=4)
def _wavelets(height: int, width: int, scales: int, angles: int) -> Any:
    from kymatio.numpy import Scattering2D

    return Scattering2D(J=scales, shape=(height, width), L=angles)
