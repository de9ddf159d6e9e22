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
      client_ids: int64, shape (len(train),): the user who owns each training example; None if the data names none.
      classes_stated: whether the number of classes was given; False if it was read off the labels.
      remarks: lines to print for the user about values that were read and may be a mistake.
      source: fingerprint of the sources of computed arrays; None where the arrays are the data itself.
      public: whether the data was read from the publisher's own files; all other data counts as private.

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
        """Counts of equal examples (inputs and label), within the training split and between the splits."""
        return EqualRows.of(self.train, self.test)

    def require_held_out(self) -> None:
        """Refuses a test split that is the training split or a part of it, since its accuracy would say nothing.

        Tables may hold equal rows by chance. As many as a random split gives are accepted.

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
        """One line if training saw much of the test split. The line reveals test data, which no epsilon covers."""
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
        """Refuses a number of classes read off private labels: it decides the shape of the released model.

        Raises:
          UserError: the number was not stated.
        """
        if not self.classes_stated:
            raise UserError(
                f"dataset {self.name}: the number of classes would follow from private labels, which no epsilon "
                "covers; state it with dataset.classes=, or save classes in the archive"
            )

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of all arrays with their shapes, or of their sources; keyed unless the data is public."""
        if self.source is not None:
            return self.source
        digest = hashlib.sha256()
        arrays: list[NDArray[Any]] = [self.train.inputs, self.train.labels, self.test.inputs, self.test.labels]
        for array in arrays + ([] if self.client_ids is None else [self.client_ids]):
            digest.update(str((array.dtype.str, array.shape)).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return self.mark(digest.hexdigest())

    def mark(self, plain: str) -> str:
        """The form of a fingerprint of this data that may be logged: keyed unless the data is public."""
        return plain if self.public else keyed(plain)
