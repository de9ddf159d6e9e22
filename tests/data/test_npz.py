"""The user's own archive."""

import contextlib
import gzip
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.config.data_settings import NpzConfig
from pipelines.core.errors import UserError
from pipelines.data.dataset import Dataset
from pipelines.data.load import load_dataset
from pipelines.data.npz import load_npz

RNG = np.random.default_rng(0)


def _arrays(**changes: Any) -> dict[str, Any]:
    arrays = {
        "x_train": RNG.random((6, 4, 5)),
        "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": RNG.random((3, 4, 5)),
        "y_test": np.array([2, 1, 0]),
    }
    return {key: value for key, value in (arrays | changes).items() if value is not None}


def _load(folder: Path, **changes: Any) -> Dataset:
    path = folder / "own.npz"
    np.savez(path, **_arrays(**changes))
    return load_dataset(NpzConfig(name="npz", file=str(path)))


def test_dataset_carries_the_files_name(tmp_path: Path) -> None:
    assert _load(tmp_path).name == "own"


@pytest.mark.parametrize(
    ("shape", "features"), [((4, 5), (4, 5, 1)), ((4, 5, 3), (4, 5, 3)), ((7,), (7,)), ((1,), (1,))]
)
def test_inputs_of_rank_two_to_four_are_taken(
    tmp_path: Path, shape: tuple[int, ...], features: tuple[int, ...]
) -> None:
    dataset = _load(tmp_path, x_train=RNG.random((6, *shape)), x_test=RNG.random((3, *shape)))
    assert dataset.features == features
    assert dataset.train.inputs.dtype == np.float32


def test_bytes_are_scaled_and_float_images_are_not(tmp_path: Path) -> None:
    pixels = np.full((6, 4, 5), 51, dtype=np.uint8)
    halves = np.full((3, 4, 5), 0.5)
    dataset = _load(tmp_path, x_train=pixels, x_test=halves)
    assert np.unique(dataset.train.inputs) == pytest.approx([0.2])  # 51/255
    assert np.unique(dataset.test.inputs) == pytest.approx([0.5])


def test_features_of_rank_two_are_left_as_they_are(tmp_path: Path) -> None:
    x = np.array([[-3.0, 250.0]] * 6)
    assert np.array_equal(_load(tmp_path, x_train=x, x_test=x[:3]).train.inputs, x)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
def test_labels_may_be_any_integers(tmp_path: Path, dtype: type) -> None:
    assert _load(tmp_path, y_train=np.array([0, 1, 2, 0, 1, 2], dtype=dtype)).train.labels.dtype == np.int64


def test_classes_come_from_both_splits_unless_given(tmp_path: Path) -> None:
    assert _load(tmp_path, y_test=np.array([3, 1, 0])).classes == 4
    assert _load(tmp_path, classes=7).classes == 7


def test_only_stated_classes_serve_a_private_run(tmp_path: Path) -> None:
    _load(tmp_path, classes=7).require_stated_classes()
    derived = _load(tmp_path)
    with pytest.raises(UserError, match=r"state it with dataset\.classes="):
        derived.require_stated_classes()
    stated = load_npz(str(tmp_path / "own.npz"), 5)
    assert stated.classes == 5
    stated.require_stated_classes()


def test_client_ids_are_kept(tmp_path: Path) -> None:
    ids = np.array([9, 9, 4, 4, 7, 7], dtype=np.int16)
    client_ids = _load(tmp_path, client_ids=ids).client_ids
    assert client_ids is not None
    assert client_ids.tolist() == ids.tolist()
    assert _load(tmp_path).client_ids is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "lacks y_test; it needs x_train, y_train, x_test, y_test, may have client_ids and classes"),
        ({"x_train": np.zeros(6)}, r"x_train has shape \(6,\); it needs \(n, features\)"),
        ({"x_train": np.float64(1)}, r"x_train has shape \(\); it needs"),
        ({"x_train": np.zeros((6, 0))}, r"x_train has shape \(6, 0\)"),
        ({"x_train": np.zeros((0, 4, 5))}, r"x_train has shape \(0, 4, 5\)"),
        ({"x_test": np.zeros((3, 4, 5, 1, 1))}, r"x_test has shape \(3, 4, 5, 1, 1\)"),
        ({"x_test": np.zeros((3, 5, 5))}, r"train inputs have shape \(4, 5, 1\) but test inputs \(5, 5, 1\)"),
        ({"x_train": np.zeros((6, 20), dtype=np.uint8)}, "is uint8 of shape .* divide flattened pixels by 255"),
        ({"x_train": np.zeros((6, 4, 5), dtype=np.int32)}, "is int32; save images as uint8"),
        ({"x_train": np.zeros((6, 4, 5), dtype=complex)}, "is complex128; save images as uint8"),
        ({"x_train": np.full((6, 4, 5), 255.0)}, r"spans 255\.\.255; images of floats must lie in \[0, 1\]: divide"),
        ({"x_train": np.full((6, 4, 5), -1.0)}, r"spans -1\.\.-1; images"),
        ({"x_train": np.full((6, 4, 5), -4.0)}, r"spans -4\.\.-4; images .* undo their standardisation"),
        ({"x_train": RNG.uniform(-1, 1, (6, 4, 5))}, r"must lie in \[0, 1\]: map \[-1, 1\] with \(x \+ 1\) / 2"),
        ({"x_train": np.eye(6, 20, dtype=np.uint8).reshape(6, 4, 5)}, "is uint8 and holds 0 and 1 only"),
        ({"x_train": RNG.random((6, 3, 8, 8))}, r"3 pixels high with 8 channels.*x_train\.transpose\(0, 2, 3, 1\)"),
        ({"x_train": RNG.random((6, 1, 8, 6))}, r"1 pixels high with 6 channels.*transpose\(0, 2, 3, 1\)"),
        (
            {"x_train": RNG.random((8, 8, 3, 6))},
            r"y_train is .*: .* its last axis: save numpy\.moveaxis\(x_train, -1, 0\)",
        ),
        ({"x_train": RNG.random((20, 6))}, r"y_train is .* save numpy\.moveaxis\(x_train, -1, 0\)"),
        ({"y_train": np.eye(3, dtype=int)[[0, 1, 2] * 2]}, r"one-hot: save y_train\.argmax\(axis=1\)"),
        ({"y_test": np.eye(3)}, r"one-hot: save y_test\.argmax\(axis=1\)"),
        ({"y_test": np.full((3, 3), 1 / 3)}, r"shares of classes: y_test\.argmax\(axis=1\)"),
        ({"y_train": np.ones((6, 3), dtype=int)}, "one label for each example"),
        ({"y_train": np.array([True] * 6)}, r"is bool .*y_train\.astype\(int\)"),
        ({"y_train": np.arange(6) / 2}, "its numbers are not whole"),
        ({"y_train": np.array([0, 1, 2, 0, 1, np.nan])}, "y_train holds NaN or infinity"),
        ({"y_train": np.arange(6.0) % 3}, r"its numbers are whole: save y_train\.astype\(int\)"),
        ({"client_ids": np.arange(6.0)}, r"its numbers are whole: save client_ids\.astype\(int\)"),
        ({"y_train": np.array([1, 2, 3, 1, 2, 3]), "classes": 3}, r"span 1\.\.3.*they count from 1: subtract 1"),
        ({"y_train": np.arange(6) % 3 + 1, "y_test": np.arange(3) + 1}, r"labels span 1\.\.3; .*subtract 1"),
        ({"y_train": np.array([-1, 1] * 3), "y_test": np.ones(3, dtype=int), "classes": 2}, r"\(labels > 0\)\.astype"),
        ({"users": np.arange(6)}, "users seems to hold the owner of each example; save it as client_ids"),
        ({"client_id": np.arange(6)}, "client_id seems to hold the owner of each example"),
        ({"x_train": np.full((6, 4, 5), np.nan)}, "train inputs hold NaN or infinity"),
        ({"x_train": np.full((6, 20), 1e300), "x_test": np.zeros((3, 20))}, "train inputs hold NaN or infinity"),
        ({"y_train": np.zeros(5, dtype=int)}, r"y_train is int64 of shape \(5,\); it needs 6 integers of shape \(6,\)"),
        ({"y_train": np.zeros((6, 1), dtype=int)}, r"y_train is int64 of shape \(6, 1\).*\.ravel\(\)"),
        ({"y_train": np.zeros(6)}, "y_train is float64"),
        ({"y_train": np.array(list("abcabc"))}, "y_train is <U1 of shape .* number names with numpy.unique"),
        ({"y_train": np.array([0, 1, 2, 0, 1, -2])}, r"labels span -2\.\.2; they must lie in 0\.\.2"),
        ({"y_train": np.array([0, 1, 2, 0, 1, 10**9])}, "labels reach 1000000000 with only 9 examples; number the"),
        ({"y_train": np.zeros(6, dtype=int), "y_test": np.zeros(3, dtype=int)}, "classes=1; classification needs"),
        ({"classes": 2}, r"labels span 0\.\.2; they must lie in 0\.\.1"),
        ({"classes": 1}, "classes must be one integer >= 2; got int64 1"),
        ({"classes": np.array([2, 3])}, r"classes must be one integer >= 2; got int64 \[2, 3\]"),
        ({"classes": 2.5}, "classes must be one integer >= 2; got float64 2.5"),
        ({"client_ids": np.arange(3)}, r"client_ids is int64 of shape \(3,\); it needs 6 integers"),
        ({"y_test": np.array([{}, {}, {}])}, "Object arrays cannot be loaded.*; save plain arrays of numbers"),
    ],
)
def test_a_wrong_array_is_named_with_its_remedy(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        _load(tmp_path, **changes)
    assert "\n" not in str(error.value)


def test_pixels_that_were_divided_twice_are_reported(tmp_path: Path) -> None:
    dark = RNG.random((6, 4, 5)) / 255
    (line,) = _load(tmp_path, x_train=dark, x_test=dark[:3]).remarks
    assert "check whether they were divided twice" in line


def test_a_wide_signal_may_be_one_pixel_high(tmp_path: Path) -> None:
    signal = RNG.random((6, 1, 100, 12))
    assert _load(tmp_path, x_train=signal, x_test=signal[:3]).features == (1, 100, 12)


def test_arrays_that_nothing_reads_are_named(tmp_path: Path) -> None:
    (line,) = _load(tmp_path, x_valid=np.zeros(3), klasses=np.array(3)).remarks
    assert "x_valid, klasses are not read; did you mean classes by klasses?" in line
    # They say whose examples these are only where nothing else does.
    known = _load(tmp_path, client_ids=np.arange(6), users=np.arange(6))
    assert known.client_ids is not None
    assert "users is not read" in known.remarks[0]
    assert _load(tmp_path).remarks == ()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"userId,movieId,rating\n1,31,2.5\n", r"it is a CSV table; read it with pandas\.read_csv"),
        (b"a;b\r\n1;2\r\n", "it is a CSV table"),
        (b'[{"a": 1}]', r"it is JSON; read it with json\.load"),
        (b"1 2 3\n4 5 6\n", r"it is text; read it with numpy\.loadtxt"),
        (b"@relation iris\n", "it is text of another format"),
        (pickle.dumps({"x_train": [1]}), "it is a pickle, which could run code"),
        (b"PAR1" + bytes(20), r"pandas\.read_parquet"),
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "it is an HDF5 file"),
        (gzip.compress(b"1,2", mtime=0), "unpack it with gunzip"),
    ],
)
def test_another_format_is_named_with_what_reads_it(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "own.npz"
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"cannot be read as an .npz archive: .*{message}") as error:
        load_npz(str(path))
    assert "\n" not in str(error.value)


def test_a_zip_of_something_else_and_a_folder_are_named(tmp_path: Path) -> None:
    for member, message in (("xl/workbook.xml", "Excel"), ("model/data.pkl", "PyTorch"), ("a.csv", "without arrays")):
        with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
            archive.writestr(member, "1")
        with pytest.raises(UserError, match=message):
            load_npz(str(tmp_path / "own.npz"))
    with pytest.raises(UserError, match="is a folder; give the path of one"):
        load_npz(str(tmp_path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^dataset\.file=.*nowhere\.npz does not exist; give the path"):
        load_dataset(NpzConfig(name="npz", file=str(tmp_path / "nowhere.npz")))


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "own.npy", np.zeros(3))
    with pytest.raises(UserError, match=r"is a single array; save all of them with numpy\.savez"):
        load_dataset(NpzConfig(name="npz", file=str(tmp_path / "own.npy")))


@pytest.mark.parametrize("data", [b"", b"no archive at all", b"PK\x03\x04 only the magic"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "own.npz"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"own\.npz cannot be read"):
        load_dataset(NpzConfig(name="npz", file=str(path)))


@settings(deadline=None)  # a shared machine may stall
@given(cut=st.floats(0, 0.999), compressed=st.booleans())
def test_a_truncated_archive_is_never_half_read(
    tmp_path_factory: pytest.TempPathFactory, cut: float, compressed: bool
) -> None:
    path = tmp_path_factory.mktemp("cut") / "own.npz"
    (np.savez_compressed if compressed else np.savez)(path, **_arrays())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut * len(whole))])
    with pytest.raises(UserError, match="cannot be read"):
        load_dataset(NpzConfig(name="npz", file=str(path)))


@settings(deadline=None)  # a shared machine may stall
@example(position=0.9182385782566085, flip=64, compressed=True)  # an impossible version of the format
@given(position=st.floats(0, 0.999), flip=st.integers(1, 255), compressed=st.booleans())
def test_a_flipped_byte_never_ends_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, position: float, flip: int, compressed: bool
) -> None:
    path = tmp_path_factory.mktemp("flip") / "own.npz"
    (np.savez_compressed if compressed else np.savez)(path, **_arrays())
    data = bytearray(path.read_bytes())
    data[int(position * len(data))] ^= flip
    path.write_bytes(data)
    with contextlib.suppress(UserError):  # none, where the format does not care about the byte, such as a date's
        assert load_dataset(NpzConfig(name="npz", file=str(path))).classes == 3
