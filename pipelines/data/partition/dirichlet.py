"""Clients of equal size whose label mixes differ, from mild to extreme."""

import numpy as np
from numpy.typing import NDArray

from pipelines.data.partition.division import Partition

# Beyond these bounds a mix is exactly one class, or exactly the prior; within them nothing overflows.
SMALLEST, LARGEST = 1e-100, 1e9


def dirichlet_partition(
    labels: NDArray[np.int64], *, num_clients: int, alpha: float, rng: np.random.Generator
) -> Partition:
    """Splits examples so that each client's label mix is drawn from Dir(alpha * p), p the mix of all labels.

    Every example belongs to exactly one client. The sizes of clients differ by at most one example, so no client is
    empty, even if each holds a single class. Each client draws by its own mix, without replacement. A class that runs
    out is removed from the mixes, which are renormalised. All clients draw at the same time, and a class with too few
    examples is divided at random. Leftover examples therefore change every client's mix alike, not only the last.

    Args:
      labels: int64, shape (n,).
      num_clients: clients to split over, 1 <= num_clients <= n.
      alpha: concentration, > 0, of the whole mix; smaller means more skewed clients. A symmetric Dirichlet with
        parameter b for each of C balanced classes is alpha = b * C.
      rng: numpy Generator, the partition's own stream.

    Source: Hsu et al. 2019, arXiv:1909.06335, section 3.
    """
    _, classes, supply = np.unique(labels, return_inverse=True, return_counts=True)
    log_mixes = _log_dirichlet(alpha * (supply / len(labels)), num_clients, rng)
    sizes = np.full(num_clients, len(labels) // num_clients)
    sizes[: len(labels) % num_clients] += 1
    counts = _fill(sizes, supply, log_mixes, rng)
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    owners = np.empty(len(labels), dtype=np.int64)
    owners[by_class] = np.repeat(np.tile(np.arange(num_clients), len(supply)), counts.T.ravel())
    return Partition.from_owners(owners, num_clients)


def _log_dirichlet(concentration: NDArray[np.float64], draws: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draws log mixes, shape (draws, classes), up to a constant in each row.

    numpy's own sampler underflows or takes minutes at small concentrations. Normalised gammas are Dirichlet, and
    Gamma(a) is Gamma(a + 1) * U^(1/a), which stays exact in logarithms; -log U is exponential.

    Source: Marsaglia and Tsang 2000, doi:10.1145/358407.358414, section 6.
    """
    shape = np.clip(concentration, SMALLEST, LARGEST)
    size = (draws, len(shape))
    return np.log(rng.standard_gamma(shape + 1, size)) - rng.standard_exponential(size) / shape


def _fill(
    sizes: NDArray[np.int64], supply: NDArray[np.int64], log_mixes: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draws how many examples of each class each client gets, int64, shape (clients, classes).

    Every pass ends or uses up a class, so there are at most as many passes as classes.
    """
    need, left = sizes.copy(), supply.copy()
    counts = np.zeros(log_mixes.shape, dtype=np.int64)
    while need.any():
        open_clients, open_classes = np.flatnonzero(need), np.flatnonzero(left)
        mixes = _normalised(log_mixes[np.ix_(open_clients, open_classes)])
        wanted = rng.multinomial(need[open_clients], mixes)
        for column, label in enumerate(open_classes):
            asked = wanted[:, column]
            if asked.sum() > left[label]:
                asked = rng.multivariate_hypergeometric(asked, left[label], method="marginals")
            counts[open_clients, label] += asked
            left[label] -= asked.sum()
        need = sizes - counts.sum(axis=1)
    return counts


def _normalised(log_mixes: NDArray[np.float64]) -> NDArray[np.float64]:
    mixes = np.exp(log_mixes - log_mixes.max(axis=1, keepdims=True))
    return mixes / mixes.sum(axis=1, keepdims=True)
