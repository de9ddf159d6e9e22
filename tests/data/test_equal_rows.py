"""Equal rows: counted by hand, explained by chance where chance explains them, refused where it does not."""

import re
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.core.errors import UserError
from pipelines.data.dataset import Dataset
from pipelines.data.equal_rows import EqualRows
from pipelines.data.split import Split

RNG = np.random.default_rng(0)


def _rows(codes: list[int] | NDArray[np.int64]) -> Split:
    """One row a code, equal where codes are; the label is its parity."""
    inputs = np.array(codes, dtype=np.float32)[:, np.newaxis]
    return Split(inputs, np.array(codes, dtype=np.int64) % 2)


def _dataset(train: Split, test: Split) -> Dataset:
    return Dataset(name="d", train=train, test=test, classes=2)


def _people(count: int, kinds: int = 32) -> Split:
    """People of whom few attributes are known, the first kinds being the most frequent."""
    return _rows(RNG.geometric(0.2, count) % kinds)


def test_equal_rows_are_counted_as_by_hand() -> None:
    # Of a, a, b one row is tested: an a, with the other a in training, in two of three random splits.
    found = EqualRows.of(_rows([4, 7]), _rows([4]))
    assert (found.tested, found.seen, found.most, found.repeated) == (1, 1, 1, 0)
    assert found.expected == pytest.approx(2 / 3)
    # Of a, a, a, a, b, c two are tested. Both b and c in 1 of 15, one of them in 8, else two a with two in training.
    found = EqualRows.of(_rows([4, 4, 4, 6]), _rows([4, 7]))
    assert (found.seen, found.most, found.repeated) == (1, 3, 3)
    assert found.expected == pytest.approx((8 * 1 + 6 * 2) / 15)


def test_the_expected_number_is_the_mean_over_random_splits() -> None:
    pooled = np.array([0, 0, 0, 0, 2, 2, 4, 4, 6, 8, 10, 12])
    shuffled = [RNG.permutation(pooled) for _ in range(4000)]
    seen = [EqualRows.of(_rows(rows[:8]), _rows(rows[8:])).seen for rows in shuffled]
    expected = EqualRows.of(_rows(pooled[:8]), _rows(pooled[8:])).expected
    assert np.mean(seen) == pytest.approx(expected, abs=5 * np.std(seen) / 4000**0.5)


@pytest.mark.parametrize("seed", range(5))
def test_people_who_are_alike_by_chance_are_no_leak(seed: int) -> None:
    dataset = _dataset(_people(1700), _people(500))
    dataset.require_held_out()
    assert dataset.equal_rows.seen > 480
    remark = dataset.seen_before
    assert remark is not None
    assert f"{dataset.equal_rows.seen} of 500" in remark
    assert f" {dataset.equal_rows.expected:.0f} " in remark


@pytest.mark.parametrize("split", [_rows(np.arange(400)), _people(400)], ids=["all differ", "few kinds"])
def test_a_test_split_that_is_the_training_split_is_refused(split: Split) -> None:
    order = RNG.permutation(len(split))
    shuffled = Split(split.inputs[order], split.labels[order])
    for test in (split, shuffled, Split(split.inputs[100:200], split.labels[100:200])):
        with pytest.raises(UserError, match=r"dataset d: 100%"):
            _dataset(split, test).require_held_out()


def test_a_random_part_of_distinct_training_rows_is_refused() -> None:
    train = _rows(np.arange(400))
    part = RNG.permutation(400)[:60]
    with pytest.raises(UserError, match="held out"):
        _dataset(train, Split(train.inputs[part], train.labels[part])).require_held_out()


def test_sorted_splits_of_few_kinds_are_no_leak() -> None:
    train, test = _rows(np.repeat([0, 1], 200)), _rows(np.repeat([0, 1], 50))
    _dataset(train, test).require_held_out()


def test_a_partial_leak_is_reported_beside_the_chance_level() -> None:
    train, fresh = _rows(np.arange(2000)), _rows(np.arange(5000, 5500))
    mixed = Split(
        np.concatenate([train.inputs[:300], fresh.inputs[:200]]),
        np.concatenate([train.labels[:300], fresh.labels[:200]]),
    )
    leaked = _dataset(train, mixed)
    leaked.require_held_out()
    # 300 pairs, each divided between the splits with probability 2 * 2000 * 500 / (2500 * 2499).
    assert leaked.equal_rows.expected == pytest.approx(300 * 0.32012805)
    assert leaked.seen_before is not None
    assert re.findall(r"\d+", leaked.seen_before)[:4] == ["300", "500", "60", "96"]
    assert _dataset(train, fresh).seen_before is None


def test_equal_inputs_of_another_class_are_no_copies() -> None:
    train = _rows(np.arange(20))
    relabelled = replace(train, labels=1 - train.labels)
    assert _dataset(train, relabelled).equal_rows.seen == 0
