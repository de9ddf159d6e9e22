"""A dataset with its fixed train and test split, checked at construction."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.core.errors import UserError
from pipelines.core.fingerprint import keyed
from pipelines.data.equal_rows import EqualRows
from pipelines.data.labels import range_remedy
from pipelines.data.split import Split


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A named classification dataset.

    Attributes:
      name: short name, such as "digits".
      train, test: the splits.
      classes: number of classes, >= 2.
      client_ids: int64, shape (len(train),): the natural owner of each training example; None where there is none.
      classes_stated: whether the number of classes was given, and not read off the labels.
      remarks: lines for whoever trains, about what was read and may be meant otherwise.
      source: fingerprint of what the arrays follow from, where they are computed; None where they are the data itself.
      public: whether these are published data, in the publisher's own files; all others count as private.

    Raises:
      UserError: fewer than two classes, wrong rank, dtype or length, empty split, inputs that are not finite, labels
        out of range.
    """

    name: str
    train: Split
    test: Split
    classes: int
    client_ids: NDArray[np.int64] | None = None
    classes_stated: bool = True
    remarks: tuple[str, ...] = ()
    source: str | None = None
    public: bool = False

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise UserError(f"dataset {self.name}: classes={self.classes}; classification needs at least 2")
        for part, split in (("train", self.train), ("test", self.test)):
            self._check_split(part, split)
        if self.train.inputs.shape[1:] != self.test.inputs.shape[1:]:
            raise UserError(
                f"dataset {self.name}: train inputs have shape {self.train.inputs.shape[1:]} but test inputs "
                f"{self.test.inputs.shape[1:]}; both need the same features"
            )
        if self.client_ids is not None and self.client_ids.shape != (len(self.train),):
            raise UserError(
                f"dataset {self.name}: client_ids has shape {self.client_ids.shape}; it needs ({len(self.train)},)"
            )

    def _check_split(self, part: str, split: Split) -> None:
        inputs, labels, where = split.inputs, split.labels, f"dataset {self.name}: {part}"
        if inputs.dtype != np.float32 or inputs.ndim not in (2, 4):
            raise UserError(
                f"{where} inputs are {inputs.dtype} of shape {inputs.shape}; "
                "they must be float32 of shape (n, features) or (n, height, width, channels)"
            )
        if labels.dtype != np.int64 or labels.shape != (len(inputs),) or len(labels) == 0:
            raise UserError(
                f"{where} labels are {labels.dtype} of shape {labels.shape}; need ({len(inputs)},) integers"
            )
        if not np.isfinite(inputs).all():
            raise UserError(f"{where} inputs hold NaN or infinity; remove or impute those examples")
        if labels.min() < 0 or labels.max() >= self.classes:
            lowest, highest = int(labels.min()), int(labels.max())
            raise UserError(
                f"{where} labels span {lowest}..{highest}; they must lie in 0..{self.classes - 1}: "
                f"{range_remedy(lowest, highest, self.classes)}"
            )

    @property
    def features(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self.train.inputs.shape[1:]

    @property
    def majority(self) -> float:
        """Accuracy, on the test split, of always answering its most frequent class."""
        return float(np.bincount(self.test.labels).max() / len(self.test))

    @cached_property
    def equal_rows(self) -> EqualRows:
        """How often examples, inputs with label, are equal, within training and between the splits."""
        return EqualRows.of(self.train, self.test)

    def require_held_out(self) -> None:
        """Refuses a test split that is the training split or a part of it: its accuracy would say nothing.

        Honest tables hold equal rows by chance, so what a random split explains is no reason.

        Raises:
          UserError: every test example is a training example, more than a random split explains.
        """
        found = self.equal_rows
        if found.same_split:
            raise UserError(
                f"dataset {self.name}: 100% of the test examples are training examples too, where a random split of "
                f"the same rows gives {found.expected / found.tested:.0%}; give a test split that was held out"
            )

    @property
    def seen_before(self) -> str | None:
        """One line where much of the test split was trained on; it tells of the test split, and is not covered."""
        found = self.equal_rows
        if not found.suspicious:
            return None
        verdict = "few distinct rows, and an accuracy on rows that training has seen"
        if found.unexplained:
            verdict = "chance does not explain this, so give a test split that was held out"
        return (
            f"dataset {self.name}: {found.seen:,} of {found.tested:,} test examples "
            f"({found.seen / found.tested:.0%}) equal a training example, where a random split of the same rows gives "
            f"{found.expected:,.0f} on average: {verdict}"
        )

    def require_stated_classes(self) -> None:
        """Refuses a number of classes that was read off private labels: it decides the shape of the released model.

        Raises:
          UserError: it was.
        """
        if not self.classes_stated:
            raise UserError(
                f"dataset {self.name}: the number of classes would follow from private labels, which no epsilon "
                "covers; state it with dataset.classes=, or save classes in the archive"
            )

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over all arrays with their shapes, or over what they follow from; under a key unless public."""
        if self.source is not None:
            return self.source
        digest = hashlib.sha256()
        arrays: list[NDArray[Any]] = [self.train.inputs, self.train.labels, self.test.inputs, self.test.labels]
        for array in arrays + ([] if self.client_ids is None else [self.client_ids]):
            digest.update(str((array.dtype.str, array.shape)).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return self.mark(digest.hexdigest())

    def mark(self, plain: str) -> str:
        """A fingerprint that follows from these data, as it may be logged."""
        return plain if self.public else keyed(plain)
