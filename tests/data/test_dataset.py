"""The Dataset noun refuses what no pipeline could train on."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipelines.core.errors import UserError
from pipelines.data.dataset import Dataset
from pipelines.data.split import Split


def _split(n: int = 6, features: tuple[int, ...] = (4,)) -> Split:
    inputs = np.linspace(0, 1, n * int(np.prod(features)), dtype=np.float32).reshape(n, *features)
    return Split(inputs, np.arange(n, dtype=np.int64) % 3)


def _dataset(**changes: Any) -> Dataset:
    values: dict[str, Any] = {"name": "toy", "train": _split(), "test": _split(3), "classes": 3}
    return Dataset(**values | changes)


@pytest.mark.parametrize("features", [(4,), (5, 7, 1)])
def test_dataset_knows_the_shape_of_an_example(features: tuple[int, ...]) -> None:
    assert _dataset(train=_split(6, features), test=_split(3, features)).features == features


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_inputs_that_are_not_finite_are_refused(value: float) -> None:
    split = _split()
    split.inputs[2, 1] = value
    with pytest.raises(UserError, match="train inputs hold NaN or infinity; remove or impute"):
        _dataset(train=split)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": replace(_split(), inputs=_split().inputs.astype(np.float64))}, "train inputs are float64"),
        ({"test": _split(3, (2, 2))}, r"test inputs are float32 of shape \(3, 2, 2\)"),
        ({"test": replace(_split(3), labels=np.array([0.0, 1, 2]))}, "test labels are float64"),
        ({"test": replace(_split(3), labels=np.array([0, 1]))}, r"shape \(2,\); need \(3,\)"),
        ({"test": _split(0)}, r"test labels are int64 of shape \(0,\)"),
        ({"test": _split(3, (5,))}, r"train inputs have shape \(4,\) but test inputs \(5,\)"),
        ({"classes": 2}, r"train labels span 0\.\.2; they must lie in 0\.\.1"),
        ({"train": replace(_split(), labels=np.arange(6) - 1)}, r"labels span -1\.\.4"),
        ({"classes": 1}, "classes=1; classification needs at least 2"),
        ({"client_ids": np.zeros(5, dtype=np.int64)}, r"client_ids has shape \(5,\); it needs \(6,?\)"),
    ],
)
def test_a_broken_invariant_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _dataset(**changes)


def test_fingerprint_follows_every_array() -> None:
    plain = _dataset()
    other_label = _split()
    other_label.labels[0] = 2
    assert plain.fingerprint == _dataset(name="renamed").fingerprint
    prints = {
        plain.fingerprint,
        _dataset(train=other_label).fingerprint,
        _dataset(test=_split(4)).fingerprint,
        _dataset(client_ids=np.zeros(6, dtype=np.int64)).fingerprint,
        _dataset(client_ids=np.ones(6, dtype=np.int64)).fingerprint,
    }
    assert len(prints) == 5
