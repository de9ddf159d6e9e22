"""Noise on clipped sums, whose digits reveal nothing but the noised sum."""

from torch import Tensor

from pipelines.privacy.noise_grid import noise_grid


def noised(total: Tensor, noise: Tensor, stddev: float) -> Tensor:
    """Returns total + stddev * noise, rounded to the grid of that noise; see `noise_grid`.

    Args:
      total: float32.
      noise: standard normal, float64, of the same shape; it is overwritten.
      stddev: >= 0.
    """
    grid = noise_grid(stddev)
    noise.mul_(stddev).add_(total)
    if grid:
        noise.div_(grid).round_().mul_(grid)
    return noise.to(total.dtype)
