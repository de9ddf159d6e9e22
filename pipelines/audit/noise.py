"""Whether draws are the noise that a plan promises."""

import numpy as np
from scipy import special

from pipelines.audit.bounds import chi_square_interval
from pipelines.audit.probe import Floats

FALSE_ALARM = 1e-6
"""Probability with which any one of the checks blames a correct mechanism."""


def noise_faults(noise: Floats, sigma: float) -> list[str]:
    """How draws, (steps, coordinates), differ from independent N(0, sigma^2).

    Scale over all, over each step and over each coordinate; correlation of each step with the next and of coordinates
    with each other. Each check has the false alarm rate `FALSE_ALARM`.
    """
    scaled = noise / sigma
    steps, coordinates = scaled.shape
    squares, found = scaled**2, []
    scales = (
        ("", squares.sum(), steps * coordinates),
        (" in some step", squares.sum(axis=1), coordinates),
        (" on some weight", squares.sum(axis=0), steps),
    )
    for where, sums, degrees in scales:
        low, high = chi_square_interval(degrees, 1 - FALSE_ALARM / np.size(sums))
        ratio = np.atleast_1d(sums) / degrees
        if not (low <= ratio.min() and ratio.max() <= high):
            worst = ratio[np.argmax(np.abs(np.log(np.maximum(ratio, 1e-300))))]
            found.append(f"noise{where} has a multiplier of {sigma * worst**0.5:.4g}, not {sigma:.4g}")
            break  # the later ones would say the same
    if found:
        return found
    limit = float(special.ndtri(1 - FALSE_ALARM / 2))
    # Along the step before, a step of fresh noise is N(0, 1), whatever came before.
    along = (scaled[1:] * scaled[:-1]).sum(axis=1) / np.sqrt(squares[:-1].sum(axis=1))
    if abs(along.sum()) > limit * np.sqrt(steps - 1):
        found.append("noise of one step is correlated with the next")
    low, high = chi_square_interval(steps, 1 - FALSE_ALARM)
    if not low <= (scaled.sum(axis=1) ** 2).sum() / (steps * coordinates) <= high:
        found.append("noise is correlated among weights")
    return found
