"""Equal examples of a dataset: within training, and between the two splits, held against what chance would give."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pipelines.data.split import Split

BELIEVABLE = 1e-6
"""A split that a random one resembles with a smaller probability was not drawn at random."""
CHANGES = 20
"""A stretch of rows with fewer changes may occur twice because both splits are sorted."""


@dataclass(frozen=True, kw_only=True)
class EqualRows:
    """How often examples, inputs with label, are equal.

    Attributes:
      tested: examples of the test split.
      seen: those of them that equal a training example.
      expected: how many would, on average, if the examples of both splits were split anew at random.
      same_split: whether the test split is the training split or a part of it, which chance does not explain.
      most: training examples that are equal to each other, in the largest such group; 1 where none is.
      repeated: training examples that equal another one.
    """

    tested: int
    seen: int
    expected: float
    same_split: bool
    most: int
    repeated: int

    @classmethod
    def of(cls, train: "Split", test: "Split") -> "EqualRows":
        """Counts the equal examples of two splits, each with at least one."""
        _, codes = np.unique(np.array(_hashes(train) + _hashes(test), dtype=np.int64), return_inverse=True)
        in_train, in_test = codes[: len(train)], codes[len(train) :]
        kinds = int(codes.max()) + 1
        trained, tested = np.bincount(in_train, minlength=kinds), np.bincount(in_test, minlength=kinds)
        alone = _left_to_the_test(trained + tested, len(test))
        return cls(
            tested=len(test),
            seen=int(tested[trained > 0].sum()),
            expected=max(0.0, float(len(test) - ((trained + tested) * alone).sum())),
            same_split=_is_part(trained, tested, alone) or _is_stretch(in_train, in_test),
            most=int(trained.max()),
            repeated=int(trained[trained > 1].sum()),
        )

    @property
    def unexplained(self) -> bool:
        """Whether clearly more test examples were seen in training than a random split explains."""
        return self.seen > 2 * self.expected + self.tested / 100

    @property
    def suspicious(self) -> bool:
        """Whether the test split's reader must know: most of it was seen, or more than chance explains."""
        return self.seen > self.tested / 2 or self.unexplained


def _hashes(split: "Split") -> list[int]:
    return [hash((x.tobytes(), y)) for x, y in zip(split.inputs, split.labels.tolist(), strict=True)]


def _log_factorials(count: int) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])


def _left_to_the_test(copies: NDArray[np.int64], tested: int) -> NDArray[np.float64]:
    """Probability that a random split of all examples puts every copy of a kind into the test split.

    Args:
      copies: of each kind in both splits together, shape (kinds,).
      tested: size of the test split.
    """
    total = int(copies.sum())
    log = _log_factorials(total)
    fits = np.minimum(copies, tested)
    chance = np.exp(log[tested] + log[total - fits] - log[tested - fits] - log[total])
    return np.where(copies <= tested, chance, 0.0)


def _is_part(trained: NDArray[np.int64], tested: NDArray[np.int64], alone: NDArray[np.float64]) -> bool:
    """Whether every test row was trained on, or both splits hold the same rows, and a random split would not do that.

    The first probability is a bound: where copies of a kind end up is negatively associated over kinds.
    """
    if (trained[tested > 0] == 0).any():
        return False
    log_chance = float(np.log1p(-alone).sum())
    if np.array_equal(trained, tested):
        log, both = _log_factorials(2 * int(trained.sum())), trained + tested
        ways = log[both] - log[trained] - log[tested]
        size = int(trained.sum())
        log_chance = min(log_chance, float(ways.sum() - (log[2 * size] - 2 * log[size])))
    return log_chance < np.log(BELIEVABLE)


def _is_stretch(trained: NDArray[np.int64], tested: NDArray[np.int64]) -> bool:
    """Whether the test rows are the training rows, or stand among them one after the other in the same order."""
    if np.array_equal(trained, tested):
        return True
    if np.count_nonzero(np.diff(tested)) < CHANGES:
        return False
    haystack, needle = trained.astype(">i8").tobytes(), tested.astype(">i8").tobytes()
    at = haystack.find(needle)
    while at >= 0 and at % 8:
        at = haystack.find(needle, at + 1)
    return at >= 0
