"""The grid that noised sums are rounded to, so that digits below it tell nothing.

A floating-point sum keeps, in its last digits, traces of what the noise was added to, since only some numbers can be
reached from either of two values: that broke textbook Laplace noise (Mironov 2012, "On significance of the least
significant bits for differential privacy"). Noise that is exact to 2^-53, added in double precision and
rounded to a grid of 2^-20 standard deviations or less, gives each grid point the probability that exact arithmetic
would, but for a share of about 2^-33 in the mean. Rounding starts from what could be released anyway, so it costs no
privacy; and an error of a millionth of the noise is none that a model could feel.
"""

from math import floor, log2

GRID_BITS = 20


def noise_grid(stddev: float) -> float:
    """Spacing of the grid for noise of that standard deviation, a power of two; 0, no grid, for no noise."""
    return 2.0 ** (floor(log2(stddev)) - GRID_BITS) if stddev > 0 else 0.0
