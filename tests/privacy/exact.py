"""The exact delta of a composed mechanism in decimal arithmetic: no grid, no transform, no accountant."""

from collections.abc import Callable
from math import ceil, sqrt

import mpmath
from mpmath import mpc, mpf


def gaussian_delta(epsilon: float, mu: float) -> float:
    """Of the Gaussian mechanism in closed form (Balle & Wang 2018, theorem 8)."""
    with mpmath.workdps(50):
        e, m = mpf(epsilon), mpf(mu)
        return float(mpmath.ncdf(m / 2 - e / m) - mpmath.exp(e) * mpmath.ncdf(-m / 2 - e / m))


def composed_delta(epsilon: float, *, q: float, sigma: float, steps: int) -> float:
    """Of the Poisson-subsampled Gaussian mechanism, the larger of both directions; a unit joins 100 steps or more.

    delta = E[(1 - e^(epsilon - L))+] of the privacy loss L, whose transform is 1 / (z (z + 1)): along any line with a
    positive real part t, delta = 1/(2 pi i) times the integral of M(z)^steps e^(-z epsilon) / (z (z + 1)), where M is
    the moment generating function of one step's loss. Sums over even points replace integrals of analytic functions
    that vanish at their ends, with an error that falls exponentially.
    """
    with mpmath.workdps(30):
        return max(_direction(mpf(epsilon), q, sigma, steps, removed) for removed in (True, False))


def _direction(epsilon: mpf, q: float, sigma: float, steps: int, removed: bool) -> float:
    apart = mpf(min(0.2 * sigma, 0.2 * sigma**2))
    points = [k * apart for k in range(-ceil(11 * sigma / apart), ceil((11 * sigma + 12) / apart) + 1)]
    variance = mpf(sigma) ** 2
    density = [apart * mpmath.exp(-(x**2) / (2 * variance)) / mpmath.sqrt(2 * mpmath.pi * variance) for x in points]
    losses = [mpmath.log(1 - mpf(q) + q * mpmath.exp((2 * x - 1) / (2 * variance))) for x in points]

    def log_moment(z: mpc) -> mpc:
        powers = ((1 + z) * loss for loss in losses) if removed else (-z * loss for loss in losses)
        return steps * mpmath.log(mpmath.fsum(d * mpmath.exp(power) for d, power in zip(density, powers, strict=True)))

    # Where the integrand is smallest along the real axis it falls fastest off it.
    t = _least(lambda t: log_moment(mpf(t)) - t * epsilon - mpmath.log(t * (1 + t)))
    step = t / 100
    curvature = float((log_moment(t + step) - 2 * log_moment(t) + log_moment(t - step)) / step**2)
    width = mpf(0.25 / sqrt(curvature + 1 / float(t) ** 2))
    total = mpf(0)
    for k in range(ceil(9 / (sqrt(curvature) * float(width))) + 1):  # the other half is its mirror image
        z = mpc(t, k * width)
        value = mpmath.exp(log_moment(z) - z * epsilon) / (z * (z + 1))
        total += value.real * (1 if k == 0 else 2)
    return float(total * width / (2 * mpmath.pi))


def _least(height: Callable[[mpf], mpf], turns: int = 24) -> mpf:
    """Roughly where a convex function of t > 0 is smallest, by golden sections of log t."""
    low, high, ratio = mpf(-4), mpf(5.5), (mpmath.sqrt(5) - 1) / 2
    for _ in range(turns):
        one, other = high - ratio * (high - low), low + ratio * (high - low)
        if height(mpmath.exp(one)) < height(mpmath.exp(other)):
            high = other
        else:
            low = one
    return mpmath.exp((low + high) / 2)
