"""Counts equal examples, within training and between the splits, and compares the counts with a random split."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pipelines.data.split import Split

BELIEVABLE = 1e-6
"""Below this probability under a random split, a split is not taken for a random one."""
CHANGES = 20
"""Equal stretches of rows with fewer changes of value may be there because both splits are sorted."""


@dataclass(frozen=True, kw_only=True)
class EqualRows:
    """Counts of equal examples (inputs and label).

    Attributes:
      tested: examples of the test split.
      seen: test examples that equal a training example.
      expected: mean of `seen` over random splits of all examples.
      same_split: whether the test split is the training split or a part of it, beyond chance.
      most: size of the largest group of equal training examples; 1 if all differ.
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
        """Whether training saw clearly more test examples than a random split gives."""
        return self.seen > 2 * self.expected + self.tested / 100

    @property
    def suspicious(self) -> bool:
        """Whether to warn: training saw most of the test split, or more of it than chance explains."""
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
    """Whether all test rows are training rows, or both splits hold the same rows, and chance does not explain it.

    The first probability is an upper bound: the splits of different kinds of rows are negatively associated.
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
    """Whether the test rows are the training rows, or a contiguous part of them in the same order."""
    if np.array_equal(trained, tested):
        return True
    if np.count_nonzero(np.diff(tested)) < CHANGES:
        return False
    haystack, needle = trained.astype(">i8").tobytes(), tested.astype(">i8").tobytes()
    at = haystack.find(needle)
    while at >= 0 and at % 8:
        at = haystack.find(needle, at + 1)
    return at >= 0
