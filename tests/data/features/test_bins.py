"""Public bins say what they are documented to say, of one row at a time."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipelines.config.data_settings import BinnedColumn, BinsConfig, DownloadedConfig, require_columns_of
from pipelines.config.schema import parse
from pipelines.core.errors import UserError
from pipelines.data.dataset import Dataset
from pipelines.data.digits import load_digits
from pipelines.data.features.apply import with_features
from pipelines.data.features.bins import Bins
from pipelines.data.load import load_dataset
from pipelines.data.split import Split
from pipelines.runs.prepare import prepare
from tests.config.test_schema import composed
from tests.data.conftest import Raw

COLUMN: dict[str, Any] = {"column": 1, "lowest": 0.0, "highest": 1.0, "bins": 4, "indicator": 2.0, "threshold": 0.5}
CENSUS = 107 + 25 + 18 + 2 * 101 + 2 * 81


def column(**changes: Any) -> BinnedColumn:
    return BinnedColumn(**COLUMN | changes)


def test_values_meet_the_bins_worked_out_by_hand() -> None:
    # Edges 0, 1/4, 1/2, 3/4, 1. A value on an edge belongs to the bin above it; from 1 on there is one last bin.
    rows = np.array([[7, -0.1], [7, 0.0], [7, 0.3], [7, 0.5], [7, 1.0], [7, 9.0]], np.float32)
    features = Bins((2,), (column(),))(rows)
    assert features.dtype == np.float32
    assert np.array_equal(features[:, :2], rows)
    assert (features[:, 2:7] / 2).tolist() == [
        [0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 0, 1],
        [0, 0, 0, 0, 1],
    ]
    assert (features[:, 7:] * 2).tolist() == [
        [0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1],
    ]


@pytest.mark.parametrize(("indicator", "threshold", "width"), [(1, 0, 5), (0, 1, 5), (1, 1, 10)])
def test_a_weight_of_zero_leaves_the_features_out(indicator: float, threshold: float, width: int) -> None:
    transform = Bins((2,), (column(indicator=indicator, threshold=threshold), column(column=0)))
    rows = np.random.default_rng(0).random((20, 2), dtype=np.float32)
    assert transform(rows).shape == (20, *transform.shape) == (20, 2 + width + 10)
    # Every value lies in [0, 1): the second column's five indicators hold one 2.
    assert (transform(rows)[:, 2 + width : 7 + width].sum(axis=1) == 2).all()


def test_no_row_matters_for_another() -> None:
    rows = np.random.default_rng(0).random((20, 2), dtype=np.float32)
    transform = Bins((2,), (column(),))
    assert np.array_equal(transform(rows), np.concatenate([transform(row[np.newaxis]) for row in rows]))


def test_images_and_missing_columns_are_refused() -> None:
    with pytest.raises(UserError, match=r"public bins need a table; this dataset has images of shape \(8, 8, 1\)"):
        Bins((8, 8, 1), (column(),))
    with pytest.raises(UserError, match=r"features.columns\[0\].column=2 is not there; columns are 0 to 1"):
        Bins((2,), (column(column=2),))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lowest": 1.0}, "column 1 has lowest=1 and highest=1; lowest must be the smaller"),
        ({"indicator": 0, "threshold": 0}, "column 1 has indicator=0 and threshold=0, which leaves nothing"),
        ({"bins": 0}, "bins=0: input should be greater than or equal to 1"),
        ({"indicator": -1}, "indicator=-1: input should be greater than or equal to 0"),
        ({"highest": math.inf}, "highest=inf: input should be a finite number"),
    ],
)
def test_bins_that_cannot_be_are_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    values = composed("dataset=adult", "features=census_bins", "pipeline=sgd")
    with pytest.raises(UserError, match=message):
        parse(values | {"features": {"name": "bins", "columns": [COLUMN | changes]}})


@pytest.fixture(scope="module")
def raw(adult: Raw) -> Dataset:
    return load_dataset(DownloadedConfig(name="adult", folder=str(adult.folder)))


@pytest.fixture(scope="module")
def census() -> BinsConfig:
    config = parse(composed("dataset=adult", "features=census_bins", "pipeline=sgd")).features
    assert isinstance(config, BinsConfig)
    return config


def test_the_census_row_worked_out_by_hand(raw: Dataset, census: BinsConfig) -> None:
    binned = with_features(raw, census, threads=1)
    assert binned.features == (CENSUS,)
    row = binned.train.inputs[0]
    assert np.array_equal(row[:107], raw.train.inputs[0])
    # 39 years: 22 / 73 = 0.301, the 8th of 24 bins. 40 hours: 39 / 98 = 0.398, 7.1 bins of 0.864 / 17 above 0.036.
    assert np.flatnonzero(row[107:132]).tolist() == [7]
    assert np.flatnonzero(row[132:150]).tolist() == [7]
    # A gain of 2,174: ln 2175 / ln 100,000 = 0.6674, 46.9 bins of 0.004 above 0.48. It reaches 47 edges. No loss.
    gain = row[150:352]
    assert {int(at): float(gain[at]) for at in np.flatnonzero(gain[:101])} == {46: 5}
    assert gain[101:] == pytest.approx(np.where(np.arange(101) < 47, 0.3, 0))
    assert not row[352:].any()


def test_hours_around_forty_share_a_bin_of_five(census: BinsConfig) -> None:
    hours = next(spec for spec in census.columns if spec.column == 4)
    rows = np.zeros((5, 5), np.float32)
    rows[:, 4] = (np.array([39, 40, 44, 45, 49]) - 1) / 98
    bins = np.argmax(Bins((5,), (hours,))(rows)[:, 5:], axis=1)
    assert bins.tolist() == [6, 7, 7, 8, 8]


def test_the_fingerprint_follows_from_data_and_bins(raw: Dataset, census: BinsConfig) -> None:
    other = census.model_copy(update={"columns": census.columns[:1]})
    fewer = replace(raw, train=Split(raw.train.inputs[:2], raw.train.labels[:2]))
    found = [with_features(data, bins, threads=1) for data, bins in ((raw, census), (raw, other), (fewer, census))]
    assert len({raw.fingerprint, *(dataset.fingerprint for dataset in found)}) == 4
    assert with_features(raw, census, threads=1).fingerprint == found[0].fingerprint
    assert np.array_equal(found[0].train.labels, raw.train.labels)


def test_runs_of_a_sweep_share_the_arrays(raw: Dataset, census: BinsConfig) -> None:
    assert with_features(raw, census, threads=1) is with_features(raw, census, threads=1)


def test_digits_have_no_columns_to_bin() -> None:
    with pytest.raises(UserError, match="public bins need a table"):
        with_features(load_digits(), BinsConfig(name="bins", columns=(column(),)), threads=1)


def test_bins_of_one_table_are_refused_by_another() -> None:
    own = ("dataset=npz", "dataset.file=mine.npz", "features=census_bins", "pipeline=sgd")
    with pytest.raises(
        UserError, match=r"columns\[0\] bins column 0 of dataset=adult .*features\.columns=\[\{column:0"
    ):
        prepare(parse(composed(*own)), threads=1)
    with pytest.raises(UserError, match="dataset=digits"):
        prepare(parse(composed("features=census_bins")), threads=1)
    columns = "features.columns=[{column:0,lowest:0,highest:1,bins:10,indicator:1,threshold:0}]"
    require_columns_of(parse(composed(*own, columns)).features, "npz")


def test_whose_columns_they_are_changes_no_fingerprint() -> None:
    assert (
        BinsConfig(name="bins", columns=(column(dataset="adult"),)).model_dump_json()
        == BinsConfig(name="bins", columns=(column(),)).model_dump_json()
    )
    config = parse(composed("dataset=adult", "features=census_bins", "pipeline=sgd"))
    assert parse(config.model_dump(mode="json")).fingerprint == config.fingerprint
