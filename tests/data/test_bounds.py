"""Columns of a table: mapped by declared bounds, named where the test split shows that they cannot train."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.config.data_settings import NpzConfig
from pipelines.core.errors import UserError
from pipelines.data.dataset import Dataset
from pipelines.data.load import load_dataset

TRAIN = np.array([[17.0, 0.0, 0.5], [90.0, 300_000.0, 0.1], [53.5, -7.0, 0.9], [200.0, 75_000.0, 0.2]])
TEST = np.array([[17.0, 250_000.0, 0.3], [99.0, 30.0, 0.4]])


def _load(folder: Path, declared: Any = None, **changes: Any) -> Dataset:
    arrays: dict[str, Any] = {"x_train": TRAIN, "y_train": [0, 1, 0, 1], "x_test": TEST, "y_test": [1, 0], "classes": 2}
    arrays |= changes
    path = folder / "own.npz"
    np.savez(path, **arrays)
    return load_dataset(NpzConfig(name="npz", file=str(path), bounds=declared))


def test_declared_bounds_map_columns_onto_the_unit_interval(tmp_path: Path) -> None:
    # (53.5 - 17) / (90 - 17) = 0.5; what lies outside is clipped; the last column stays.
    expected = np.array([[0, 0, 0.5], [1, 1, 0.1], [0.5, 0, 0.9], [1, 0.25, 0.2]], dtype=np.float32)
    by_key = _load(tmp_path, declared=((0, 17, 90), (1, 0, 300_000)))
    by_archive = _load(tmp_path, bounds=np.array([[17, 90], [0, 300_000], [np.nan, np.nan]]))
    for dataset in (by_key, by_archive):
        assert dataset.train.inputs == pytest.approx(expected)
        assert dataset.test.inputs == pytest.approx(np.array([[0, 5 / 6, 0.3], [1, 1e-4, 0.4]]))


def test_the_key_wins_over_the_archive(tmp_path: Path) -> None:
    both = _load(tmp_path, declared=((2, 0, 2),), bounds=np.array([[17, 90], [0, 300_000], [0, 1]]))
    assert both.train.inputs[0].tolist() == [17, 0, 0.25]


def test_columns_that_cannot_train_are_named_from_the_test_split(tmp_path: Path) -> None:
    (line,) = _load(tmp_path).remarks
    assert "columns 0 (17 to 99), 1 (30 to 250000) of x_test" in line
    assert "'dataset.bounds=[[0,0,100],[1,0,300000]]'" in line
    assert "200" not in line  # of a private row
    (line,) = _load(tmp_path, declared=((0, 17, 120),)).remarks
    assert "column 1 (30 to 250000)" in line
    quiet = _load(tmp_path, declared=((0, 17, 120), (1, 0, 300_000)))
    assert quiet.remarks == ()


@pytest.mark.parametrize(("size", "named"), [(0.0, False), (0.005, True), (0.05, False), (49.0, False), (51.0, True)])
def test_a_column_is_named_at_either_end(tmp_path: Path, size: float, named: bool) -> None:
    tested = np.array([[size, 0.5], [-size, 0.2]])
    assert bool(_load(tmp_path, x_train=TRAIN[:, :2], x_test=tested).remarks) == named


def test_only_a_few_of_many_columns_are_listed(tmp_path: Path) -> None:
    (line,) = _load(tmp_path, x_train=np.ones((4, 90)), x_test=np.full((2, 90), 255.0)).remarks
    assert "4 (255 to 255) and 85 more" in line


def test_test_values_outside_of_declared_bounds_are_counted(tmp_path: Path) -> None:
    (line,) = _load(tmp_path, declared=((0, 17, 90), (1, 0, 300_000))).remarks
    assert "1 of 2 test values of column 0 lie outside its bounds 17 and 90" in line


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bounds_hide_no_broken_value(tmp_path: Path, value: float) -> None:
    broken = TRAIN.copy()
    broken[1, 1] = value
    with pytest.raises(UserError, match="NaN or infinity"):
        _load(tmp_path, x_train=broken, declared=((1, 0, 300_000),))


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (((3, 0, 1),), r"column 3, which is not there; columns are 0 to 2"),
        (((1, 5, 5),), r"column 1 are 5 and 5; give the lower one first"),
        (((1, 0, float("inf")),), r"column 1 are 0 and inf"),
        (((1, 0, 1), (1, 0, 2)), r"name column 1 twice"),
    ],
)
def test_unsound_bounds_are_named(tmp_path: Path, bounds: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"^dataset.bounds: .*{message}"):
        _load(tmp_path, declared=bounds)


def test_bounds_of_another_shape_or_of_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"bounds is float64 of shape \(2, 3\); .* shape \(3, 2\)"):
        _load(tmp_path, bounds=np.zeros((2, 3)))
    with pytest.raises(UserError, match="bounds are for features"):
        _load(tmp_path, x_train=np.zeros((4, 5, 5)), x_test=np.zeros((2, 5, 5)), declared=((0, 0, 1),))
