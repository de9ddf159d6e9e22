"""Noise of banded matrices: their coefficients, and draws that one of them correlates over steps.

The argument for its privacy is in `banded`.

Source: Choquette-Choo et al. 2023, arXiv:2306.08153; Kalinin and Lampert 2024, arXiv:2405.13763 (banded square root);
McKenna 2024, arXiv:2405.15913 (optimised banded Toeplitz matrices).
"""

from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from pipelines.privacy.mechanisms.base import Floats

LARGEST = 1e150
"""Of an error whose square is still a float; the search for coefficients passes matrices whose inverse explodes."""


def square_root_coefficients(bands: int) -> Floats:
    """Coefficients of a banded square root of the prefix sums, of L2 norm 1, float64, (bands,).

    C C = A for c_k = binom(2k, k) / 4^k, the series of (1 - z)^(-1/2); it is cut after `bands` and scaled.

    Args:
      bands: >= 1.

    Source: Fichtenberger et al. 2022, arXiv:2202.11205; Kalinin and Lampert 2024, arXiv:2405.13763.
    """
    k = np.arange(1, bands)
    coefficients = np.concatenate([[1.0], np.cumprod((2 * k - 1) / (2 * k))])
    return np.asarray(coefficients / np.linalg.norm(coefficients))


@lru_cache(maxsize=64)
def optimal_coefficients(bands: int, steps: int) -> tuple[float, ...]:
    """Coefficients, of L2 norm 1, that give the prefix sums of so many steps the least mean squared error.

    They are 2 to 22 % better, in the root of that error, than the square root's, the more the longer a run is beside
    its bands. The problem has one local minimum wherever it was tried.

    Args:
      bands: >= 1.
      steps: >= bands.

    Source: McKenna 2024, arXiv:2405.15913, section 4.
    """
    from scipy.optimize import minimize  # late: runs with other noise do without

    if bands == 1:
        return (1.0,)
    start = square_root_coefficients(bands)
    options = {"maxiter": 1000, "ftol": 1e-13, "gtol": 1e-9}
    found = minimize(_log_error, start, args=(steps,), jac=True, method="L-BFGS-B", options=options).x
    return tuple(float(value) for value in found / np.linalg.norm(found))


def _log_error(direction: Floats, steps: int) -> tuple[float, Floats]:
    """Logarithm of the summed squared error of the prefix sums, for coefficients along `direction`, and its gradient.

    With w = A C^-1 e_0 the error is the sum of (steps - t) w_t^2, and w changes with c_j by -C^-1 w, moved down by j.
    """
    from scipy.signal import lfilter

    length = float(np.linalg.norm(direction))
    coefficients = direction / length
    weights = np.arange(steps, 0, -1)
    with np.errstate(over="ignore", invalid="ignore"):
        response = _summed_response(coefficients, steps)
        if not np.abs(response).max() < LARGEST:
            return float(np.log(LARGEST)), np.zeros_like(direction)
        error = float(weights @ response**2)
        back = lfilter([1.0], coefficients, (weights * response)[::-1])[::-1]
    gradient = np.array([-2 / error * (back[j:] @ response[: steps - j]) for j in range(len(coefficients))])
    return float(np.log(error)), (gradient - coefficients * (gradient @ coefficients)) / length


def _summed_response(coefficients: Floats, steps: int) -> Floats:
    """What one unit of noise in the first step adds to each prefix sum: A C^-1 e_0, (steps,)."""
    from scipy.signal import lfilter

    pulse = np.zeros(steps)
    pulse[0] = 1
    return np.asarray(np.cumsum(lfilter([1.0], coefficients, pulse)))


def prefix_sum_variances(coefficients: tuple[float, ...] | Floats, steps: int) -> Floats:
    """Variance of the noise on the sum of the first 1, 2, ..., `steps` releases, per coordinate, for sigma clip = 1.

    Their mean and their largest, the last one, are the mean and the maximal squared error; plain noise has 1, 2, 3, ...
    """
    return np.asarray(np.cumsum(_summed_response(np.asarray(coefficients), steps) ** 2))


def whitened(noise: Floats, coefficients: tuple[float, ...] | Floats) -> Floats:
    """Turns the noise on releases, (steps, ...), back into the independent draws that it came from: C X = Z."""
    draws = np.zeros_like(noise)
    for j, value in enumerate(coefficients[: len(noise)]):
        draws[j:] += value * noise[: len(noise) - j]
    return draws


class CorrelatedNoise:
    """Makes the noise on releases from independent draws, step by step: row t of X with C X = Z.

    It remembers bands - 1 past rows of X, which are secret, like all that noise is made of. Errors of rounding die out:
    a polynomial of falling coefficients has no root within the unit circle (Enestrom and Kakeya), so that the recursion
    forgets.

    Attributes:
      column_length: L2 norm of a full column of C: what a contribution of length 1 amounts to in C G.
    """

    def __init__(self, coefficients: Sequence[float]) -> None:
        """Starts before the first step.

        Args:
          coefficients: c_0, c_1, ... of C.
        """
        self._first, *self._others = coefficients
        self.column_length = float(np.linalg.norm(coefficients))
        self._past: deque[list[Any]] = deque(maxlen=len(self._others))

    def next(self, draws: Sequence[Any]) -> list[Any]:
        """Returns the noise of the next step, which may be overwritten; of float64, as the draws are.

        Args:
          draws: standard normal, one array or tensor for each of the model's; the same shapes in every step.
        """
        if not self._others and self._first == 1:  # plain noise, in the step that every private run takes
            return list(draws)
        noise = list(draws)
        for value, past in zip(self._others, self._past, strict=False):  # fewer rows than bands at first
            noise = [draw - value * before for draw, before in zip(noise, past, strict=True)]
        noise = [draw / self._first for draw in noise]
        self._past.appendleft(noise)
        return [1.0 * values for values in noise]  # what is returned may be overwritten
