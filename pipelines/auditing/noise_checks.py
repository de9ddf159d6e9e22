"""Tests whether draws are the noise of a plan: independent Gaussians of one standard deviation."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special

from pipelines.auditing.lower_bounds import chi_square_interval

Floats = NDArray[np.float64]
FALSE_ALARM = 1e-6
"""Probability that one check finds a fault in a correct mechanism."""
LONG = 20_000
"""Number of draws from which sums of products count as normal, with `MARGIN`."""
MARGIN, LONGEST = 1.1, 2**21
SAME = 4e-6
"""Distance, in standard deviations, below which two draws count as equal; float32 rounds weights that noise moves."""
BINS = 2**16
MANY, LEAST_EQUAL = 1.5, 50
"""More equal draws than `MANY` times the expected number plus `LEAST_EQUAL` are not chance."""


def noise_faults(noise: Floats, sigma: float, tensors: Sequence[int] = ()) -> list[str]:
    """Differences between draws and independent N(0, sigma^2).

    The checks are: scale over all draws, on each tensor, in each step and on each coordinate; shape of the
    distribution; correlation of every two steps, of steps at every distance, of coordinates, and of the whole sequence
    with itself; lengths of steps, and the directions that they reach; equal draws. Scale, shape, steps and equal draws
    are also checked on each tensor alone, because a small tensor would not show among all weights. Each check has a
    false alarm rate of the order of `FALSE_ALARM`, shared by the tensors.

    Args:
      noise: (steps, coordinates).
      sigma: > 0.
      tensors: number of coordinates of each tensor, in order; empty if tensors are not distinguished.
    """
    scaled = noise / sigma
    if found := _scale_faults(scaled, sigma, tensors):
        return found[:1]  # the others would say the same
    if found := [*_pattern_faults(scaled, FALSE_ALARM), *_repetition_faults(scaled), *_length_faults(scaled)]:
        return found
    if found := [*_rank_faults(scaled), *(_reordered_faults(scaled) if len(tensors) else ())]:
        return found
    for number, part in enumerate(np.split(scaled, np.cumsum(tensors)[:-1], axis=1) if len(tensors) else (), 1):
        level = FALSE_ALARM / len(tensors)
        if found := [*_pattern_faults(part, level), *_equal_faults(part), *_equal_faults(part.T)]:
            return [f"on tensor {number}, {fault}" for fault in found[:1]]
    return [*_equal_faults(scaled)] if len(tensors) else []


def _length_faults(scaled: Floats) -> Iterator[str]:
    """Checks the scatter of the steps' lengths: noise of one fixed length still looks Gaussian in every projection."""
    steps, coordinates = scaled.shape
    below = np.clip(special.chdtr(coordinates, (scaled**2).sum(axis=1)), 1e-300, 1 - 1e-16)
    low, high = chi_square_interval(steps, 1 - FALSE_ALARM)
    if not low <= float(np.mean(special.ndtri(below) ** 2)) <= high:
        yield "lengths of whole steps of noise do not scatter like those of Gaussian noise"


def _rank_faults(scaled: Floats) -> Iterator[str]:
    """Checks that noise reaches every direction: the root of X X^T has independent N(0, 1) below its diagonal.

    Source: Bartlett 1933, for the decomposition of a Wishart matrix.
    """
    rows = scaled if len(scaled) <= scaled.shape[1] else scaled.T
    pairs = len(rows) * (len(rows) - 1) // 2
    if not pairs:
        return
    try:
        root = np.linalg.cholesky(rows @ rows.T)
    except np.linalg.LinAlgError:
        yield "noise of some steps is a linear combination of that of other steps"
        return
    low, high = chi_square_interval(pairs, 1 - FALSE_ALARM)
    if not low <= float((np.tril(root, -1) ** 2).sum()) / pairs <= high:
        yield "noise does not reach every direction equally"


def _reordered_faults(scaled: Floats) -> Iterator[str]:
    """Checks for sizes of draws that two steps have in common, in any order and with any signs."""
    steps, coordinates = scaled.shape
    bins = np.minimum((2 * special.ndtr(np.abs(scaled)) - 1) * BINS, BINS - 1).astype(np.int64)
    places = (np.repeat(np.arange(steps), coordinates), bins.ravel())
    counts = sparse.csr_matrix((np.ones(bins.size), places), (steps, BINS))
    shared = (counts @ counts.T).toarray()[np.triu_indices(steps, 1)]
    expected = coordinates**2 / BINS
    if len(shared) and shared.max() > expected + MANY * _limit(len(shared), FALSE_ALARM) * expected**0.5 + LEAST_EQUAL:
        yield "draws of one step are those of another step, in another order"


def _pattern_faults(scaled: Floats, level: float) -> Iterator[str]:
    yield from _shape_faults(scaled.ravel(), level)
    yield from _step_faults(scaled, level)


def _scale_faults(scaled: Floats, sigma: float, tensors: Sequence[int]) -> list[str]:
    squares, found = scaled**2, []
    steps, coordinates = scaled.shape
    ends = np.cumsum(tensors)[:-1]
    groups = [
        ("", np.array([squares.sum()]), np.array([steps * coordinates])),
        (" on some tensor", *_by_tensor(squares, ends, tensors)),
        (" in some step", squares.sum(axis=1), np.full(steps, coordinates)),
        (" on some weight", squares.sum(axis=0), np.full(coordinates, steps)),
    ]
    for where, sums, degrees in groups:
        if not len(sums):
            continue
        limits = [chi_square_interval(int(degree), 1 - FALSE_ALARM / len(sums)) for degree in np.unique(degrees)]
        low, high = np.array(limits)[np.searchsorted(np.unique(degrees), degrees)].T
        ratio = sums / degrees
        if (beyond := ~((low <= ratio) & (ratio <= high))).any():
            worst = ratio[beyond][np.argmax(np.abs(np.log(np.maximum(ratio[beyond], 1e-300))))]
            found.append(f"noise{where} has a multiplier of {sigma * worst**0.5:.4g}, not {sigma:.4g}")
    return found


def _by_tensor(squares: Floats, ends: NDArray[np.int64], tensors: Sequence[int]) -> tuple[Floats, Floats]:
    parts = np.split(squares, ends, axis=1) if len(tensors) else []
    return np.array([part.sum() for part in parts]), np.array([part.size for part in parts])


def _shape_faults(draws: Floats, level: float) -> Iterator[str]:
    """Checks the distance of the distribution from the normal one, and the largest draw."""
    count = len(draws)
    ordered = special.ndtr(np.sort(draws))
    steps = np.arange(count + 1) / count
    distance = max(np.max(steps[1:] - ordered), np.max(ordered - steps[:-1]))
    if distance > np.sqrt(np.log(2 / level) / (2 * count)):  # Massart 1990, doi:10.1214/aop/1176990746
        yield f"noise is not Gaussian (its distribution is {distance:.2g} off)"
        return
    largest = float(np.abs(draws).max())
    tail = 2 * special.ndtr(-largest)
    if count * tail < level / 2 or count * np.log1p(-tail) < np.log(level / 2):
        yield f"noise is not Gaussian (the largest of {count} draws is {largest:.3g} deviations)"


def _step_faults(scaled: Floats, level: float) -> Iterator[str]:
    """Checks correlation of steps: the projection of fresh noise on the direction of any earlier step is N(0, 1)."""
    steps = len(scaled)
    along = scaled @ scaled.T / np.linalg.norm(scaled, axis=1)[:, None]  # row: of which step, column: a later one
    pairs = steps * (steps - 1) // 2
    upper = np.triu_indices(steps, 1)
    if pairs and (extreme := np.argmax(np.abs(along[upper]))) is not None:
        if abs(along[upper][extreme]) > _limit(pairs, level):
            first, second = upper[0][extreme] + 1, upper[1][extreme] + 1
            yield f"noise of step {second} is correlated with that of step {first}"
            return
        by_lag = [np.trace(along, lag) / np.sqrt(steps - lag) for lag in range(1, steps)]
        if np.max(np.abs(by_lag)) > _limit(len(by_lag), level):
            lag = 1 + int(np.argmax(np.abs(by_lag)))
            yield f"noise of one step is correlated with the next{f' but {lag - 1}' if lag > 1 else ''}"


def _repetition_faults(scaled: Floats) -> Iterator[str]:
    """Checks correlation of coordinates: in their sum, and at every distance in their order."""
    steps, coordinates = scaled.shape
    low, high = chi_square_interval(steps, 1 - FALSE_ALARM)
    if not low <= (scaled.sum(axis=1) ** 2).sum() / (steps * coordinates) <= high:
        yield "noise is correlated among weights"
        return
    sequence = scaled.ravel()[:LONGEST]
    if len(sequence) >= LONG:
        spectrum = np.abs(np.fft.rfft(sequence, 2 * len(sequence))) ** 2
        products = np.fft.irfft(spectrum)[1 : len(sequence)]
        size = np.sqrt(len(sequence) - np.arange(1, len(sequence)))
        usable = size**2 >= LONG / 2
        if usable.any() and np.max(np.abs(products / size)[usable]) > MARGIN * _limit(len(sequence), FALSE_ALARM):
            lag = 1 + int(np.argmax(np.abs(products / size) * usable))
            yield f"noise repeats itself at a distance of {lag} weights"


def _equal_faults(scaled: Floats) -> Iterator[str]:
    """Checks for draws of one row that are equal or opposite, in any places."""
    steps, coordinates = scaled.shape
    gaps = np.diff(np.sort(np.abs(scaled), axis=1), axis=1)
    found = int(np.count_nonzero(gaps < SAME))
    # The distance of two sizes has density 2/sqrt(pi) at 0. The close neighbours are at most as many as close pairs.
    expected = steps * coordinates * (coordinates - 1) * SAME / np.sqrt(np.pi)
    if found > MANY * expected + LEAST_EQUAL:
        yield f"{found} draws of noise equal another draw, where chance gives {expected:.0f}"


def _limit(checks: int, level: float) -> float:
    """Limit on the largest of `checks` draws of |N(0, 1)|, at that false alarm rate."""
    return float(-special.ndtri(level / (2 * checks)))
