"""A dataset with its fixed train and test split, checked at construction."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import UserError
from pipelines.fingerprint import keyed


@dataclass(frozen=True)
class Split:
    """Inputs and labels of one split.

    Attributes:
      inputs: float32, shape (n, height, width, channels), images in [0, 1], or (n, features).
      labels: int64, shape (n,).
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A named classification dataset.

    Attributes:
      name: short name, such as "digits".
      train, test: the splits.
      classes: number of classes, >= 2.
      client_ids: int64, shape (len(train),): the natural owner of each training example; None where there is none.
      classes_stated: whether the number of classes was given, and not read off the labels.
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
            raise UserError(
                f"{where} labels span {labels.min()}..{labels.max()}; they must lie in 0..{self.classes - 1}"
            )

    @property
    def features(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self.train.inputs.shape[1:]

    @cached_property
    def overlap(self) -> float:
        """Share of test examples, inputs with label, that occur in the training split too."""

        def examples(split: Split) -> list[int]:
            return [hash((x.tobytes(), y)) for x, y in zip(split.inputs, split.labels.tolist(), strict=True)]

        seen = set(examples(self.train))
        return sum(example in seen for example in examples(self.test)) / len(self.test)

    def require_held_out(self) -> None:
        """Refuses a test split that is part of the training split, whose accuracy would say nothing.

        Real tables hold equal rows by chance, so only a majority counts.

        Raises:
          UserError: more than half of the test examples are training examples.
        """
        if self.overlap > 0.5:
            raise UserError(
                f"dataset {self.name}: {self.overlap:.0%} of the test examples are training examples too; give a test "
                "split that was held out"
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
