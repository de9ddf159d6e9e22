"""The grid to which noised sums are rounded, so that digits below it reveal nothing.

The last digits of a floating-point sum keep traces of what the noise was added to, because only some numbers can be
reached from either of two values. This broke textbook Laplace noise (Mironov 2012, "On significance of the least
significant bits for differential privacy"). Here the noise is exact to 2^-53, is added in double precision, and is
rounded to a grid of 2^-20 standard deviations or less. Then each grid point has the probability of exact arithmetic,
up to a share of about 2^-33 on average. Rounding only processes the noised sum, so it costs no privacy. An error of a
millionth of the noise does not affect a model.
"""

from math import floor, log2

GRID_BITS = 20


def noise_grid(stddev: float) -> float:
    """Spacing of the grid for noise of that standard deviation, a power of two; 0, no grid, for no noise."""
    return 2.0 ** (floor(log2(stddev)) - GRID_BITS) if stddev > 0 else 0.0
