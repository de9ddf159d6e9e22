"""UCI Adult under public preprocessing."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.config.data_settings import DownloadedConfig
from pipelines.core.errors import UserError
from pipelines.data.adult import CATEGORIES, NUMBERS
from pipelines.data.dataset import Dataset
from pipelines.data.load import load_dataset
from tests.data.conftest import ADULT_TEST, ADULT_TRAIN, Raw, write_adult


def _load(folder: Path) -> Dataset:
    return load_dataset(DownloadedConfig(name="adult", folder=str(folder)))


@pytest.fixture(scope="module")
def loaded(adult: Raw) -> Dataset:
    return _load(adult.folder)


def _feature(name: str, value: str) -> int:
    """Returns the column of a one-hot feature."""
    start = len(NUMBERS)
    for category in CATEGORIES:
        if category.name == name:
            return start + category.values.index(value)
        start += len(category.values)
    raise AssertionError(name)


def test_there_are_107_features_in_the_unit_interval(loaded: Dataset) -> None:
    # 5 numbers, then 9 workclasses, 16 educations, 7 marital states, 15 occupations, 6 relationships, 5 races, 2 sexes
    # and 42 countries: 5 + 9 + 16 + 7 + 15 + 6 + 5 + 2 + 42 = 107.
    assert loaded.features == (107,)
    assert loaded.train.inputs.min() == 0
    assert loaded.train.inputs.max() == 1
    assert loaded.classes == 2


def test_first_row_is_the_one_worked_out_by_hand(loaded: Dataset) -> None:
    # 39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, 2174, 0, 40,
    # United-States, <=50K. Numbers: 22/73, 12/15, ln 2175 / ln 100000, 0, 39/98.
    row = loaded.train.inputs[0]
    gain = math.log(2175) / math.log(100_000)
    assert row[:5] == pytest.approx([22 / 73, 12 / 15, gain, 0, 39 / 98], abs=1e-7)
    # State-gov is the 6th workclass: 5 + 5. Bachelors the 1st education: 14 + 0. Never-married the 3rd state: 30 + 2.
    # Adm-clerical the 9th occupation: 37 + 8. Not-in-family the 4th relationship: 52 + 3. White the 1st race: 58.
    # Male the 2nd sex: 63 + 1. United-States the 1st country: 65.
    assert np.flatnonzero(row[5:] == 1).tolist() == [column - 5 for column in (10, 14, 32, 45, 55, 58, 64, 65)]
    assert loaded.train.labels[0] == 0


def test_every_row_has_one_value_per_category(loaded: Dataset) -> None:
    assert (loaded.train.inputs[:, 5:].sum(axis=1) == len(CATEGORIES)).all()


def test_published_adult_has_its_known_counts(adult: Raw, loaded: Dataset) -> None:
    adult.require_published()
    assert (len(loaded.train), len(loaded.test)) == (32_561, 16_281)
    # adult.names: 24.08 % of the training rows earn more. In the test split the majority is right 76.4 % of the time.
    assert int(loaded.train.labels.sum()) == 7_841
    assert round(100 * (1 - loaded.test.labels.mean()), 1) == 76.4
    # Missing answers are kept as a category of their own: 1,836 in workclass, 583 in native-country.
    assert int(loaded.train.inputs[:, _feature("workclass", "?")].sum()) == 1_836
    assert int(loaded.train.inputs[:, _feature("native-country", "?")].sum()) == 583


def test_published_adult_passes_its_checksums(adult: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    adult.require_published()
    monkeypatch.setenv("PIPELINES_CACHE", str(adult.folder.parent))  # the cache admits genuine files only
    assert len(load_dataset(DownloadedConfig(name="adult")).test) == 16_281


def test_missing_answers_and_the_test_files_quirks_are_read(tmp_path: Path) -> None:
    dataset = _load(write_adult(tmp_path))
    assert (len(dataset.train), len(dataset.test)) == (3, 2)
    assert dataset.train.labels.tolist() == [0, 1, 0]
    assert dataset.test.labels.tolist() == [0, 1]
    assert dataset.train.inputs[:, _feature("workclass", "?")].tolist() == [0, 1, 0]


def test_features_of_a_row_do_not_depend_on_other_rows(tmp_path: Path) -> None:
    rows = ADULT_TRAIN.splitlines()
    alone = _load(write_adult(tmp_path / "alone", train=rows[0]))
    together = _load(write_adult(tmp_path / "together"))
    assert np.array_equal(alone.train.inputs[0], together.train.inputs[0])


def test_numbers_beyond_the_public_bounds_are_clipped(tmp_path: Path) -> None:
    row = ADULT_TRAIN.splitlines()[0].replace("39,", "120,", 1).replace(" 2174,", " -5,").replace(" 40,", " 0,")
    numbers = _load(write_adult(tmp_path, train=row)).train.inputs[0, :5]
    assert numbers == pytest.approx([1, 12 / 15, 0, 0, 0])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace("Bachelors, ", ""), r"adult\.data line 1 has 14 columns, not 15; fix the line"),
        (lambda text: text[: text.index("South")], r"adult\.data line 2 has 14 columns"),
        (lambda text: text.replace("South", "Atlantis"), "line 2: native-country=Atlantis is not a known value; allow"),
        (lambda text: text.replace("HS-grad", "?"), r"line 3: education=\? is not a known value"),
        (lambda text: text.replace(">50K", "50K"), "line 2: income=50K is not a known value; allowed are <=50K, >50K"),
        (lambda text: text.replace("54,", "old,"), "line 2: age=old is not a number"),
        (lambda text: text.replace("54,", "nan,"), "line 2: age=nan is not a number"),
        (lambda text: "\n" + text.replace("54,", ","), "line 3: age= is not a number"),
        (lambda text: "", r"adult\.data holds no rows"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, damage: Callable[[str], str], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        _load(write_adult(tmp_path, train=damage(ADULT_TRAIN)))
    assert "\n" not in str(error.value)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    folder = write_adult(tmp_path)
    (folder / "adult.data").write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(UserError, match=r"adult\.data line 1 has 1 columns"):
        _load(folder)


def test_line_numbers_of_the_test_file_count_its_header(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"adult\.test\.gz line 2: race=Green"):
        _load(write_adult(tmp_path, test=ADULT_TEST.replace("Black", "Green")))


def test_offline_without_files_one_line_says_what_to_put_where(cache: Path) -> None:
    with pytest.raises(UserError) as error:
        load_dataset(DownloadedConfig(name="adult"))
    message = str(error.value)
    assert "\n" not in message
    assert "adult.data[.gz], adult.test[.gz]" in message
    assert str(cache / "adult") in message
    assert "dataset.folder=" in message
