"""MNIST and its like from IDX files."""

import gzip
import logging
from pathlib import Path

import numpy as np
import pytest

from pipelines.config.data_settings import DownloadedConfig
from pipelines.core.errors import UserError
from pipelines.data.dataset import Dataset
from pipelines.data.load import load_dataset
from tests.data.conftest import IDX_FILES, Raw, write_idx, write_mnist_like


def _load(folder: Path, name: str = "mnist") -> Dataset:
    return load_dataset(DownloadedConfig.model_validate({"name": name, "folder": str(folder)}))


@pytest.fixture(scope="module")
def loaded(mnist: Raw) -> Dataset:
    return _load(mnist.folder)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return write_mnist_like(tmp_path / "own")


def test_images_are_unit_floats_with_a_channel(loaded: Dataset) -> None:
    assert loaded.features == (28, 28, 1)
    assert loaded.train.inputs.dtype == np.float32
    assert loaded.train.inputs.min() == 0
    assert loaded.train.inputs.max() <= 1
    assert loaded.classes == 10


def test_first_training_label_is_five(loaded: Dataset) -> None:
    assert loaded.train.labels[0] == 5


def test_published_mnist_has_its_known_counts(mnist: Raw, loaded: Dataset) -> None:
    mnist.require_published()
    assert (len(loaded.train), len(loaded.test)) == (60_000, 10_000)
    assert loaded.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert loaded.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(loaded.test.labels)[[0, 1]].tolist() == [980, 1135]
    # LeCun's page and every tutorial since: the mean training pixel is 0.1307.
    assert loaded.train.inputs.mean(dtype=np.float64) == pytest.approx(0.1307, abs=5e-5)


def test_published_mnist_passes_its_checksums(
    mnist: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mnist.require_published()
    monkeypatch.setenv("PIPELINES_CACHE", str(mnist.folder.parent))  # the cache admits genuine files only
    with caplog.at_level(logging.WARNING):
        assert len(load_dataset(DownloadedConfig(name="mnist")).train) == 60_000
    assert not caplog.records


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_own_files_in_the_same_format_are_marked_so(own: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    dataset = _load(own, name)
    assert dataset.name == name
    assert (len(dataset.train), len(dataset.test)) == (12, 10)
    assert dataset.train.labels.tolist() == [5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6]
    # Every pixel of image i is the byte i, so that image 3 is 3/255 throughout.
    assert dataset.train.inputs[3].max() == dataset.train.inputs[3].min() == np.float32(3) / np.float32(255)
    assert len(caplog.messages) == 4
    assert f"is not the published file of {name}" in caplog.messages[0]


def test_the_full_range_of_bytes_maps_onto_zero_to_one(own: Path) -> None:
    images = np.full((12, 28, 28), 255, dtype=np.uint8)
    write_idx(own / "train-images-idx3-ubyte.gz", images)
    assert (_load(own).train.inputs == 1).all()


def test_a_folder_that_lacks_files_names_them(own: Path) -> None:
    (own / "train-labels-idx1-ubyte").unlink()
    (own / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(UserError, match=r"own lacks train-labels-idx1-ubyte, t10k-images-idx3-ubyte; put there"):
        _load(own)


def test_a_truncated_gzip_is_one_clear_line(own: Path) -> None:
    path = own / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz is damaged gzip .*; replace it with a complete"):
        _load(own)


def test_a_corrupt_gzip_is_one_clear_line(own: Path) -> None:
    path = own / "train-images-idx3-ubyte.gz"
    packed = bytearray(path.read_bytes())
    packed[-6] ^= 0xFF  # in the checksum at the end
    path.write_bytes(packed)
    with pytest.raises(UserError, match="is damaged gzip"):
        _load(own)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "starts with 0x00000000 and has 0 bytes"),
        (b"<html>not found</html>", "is not an IDX file of labels: it starts with 0x3c68746d"),
        (b"\0\0\x08\x03" + b"\0" * 40, "is not an IDX file of labels: it starts with 0x00000803"),
        (b"\0\0\x08\x01\0\0\0\x0c" + bytes(11), "has 19 bytes, but its header promises 20"),
        (b"\0\0\x08\x01\0\0\0\x0c" + bytes(13), "has 21 bytes, but its header promises 20"),
        (b"\0\0\x08\x01\0\0\0\x0b" + bytes(11), "holds 12 images but .* 11 labels"),
        (b"\0\0\x08\x01\0\0\0\x0c" + bytes([10] * 12), r"holds label 10; labels must lie in 0\.\.9"),
    ],
)
def test_a_malformed_label_file_is_named(own: Path, data: bytes, message: str) -> None:
    (own / "train-labels-idx1-ubyte").write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        _load(own)
    assert str(own / "train-labels-idx1-ubyte") in str(error.value)
    assert "\n" not in str(error.value)


def test_images_of_another_size_are_sent_to_npz(own: Path) -> None:
    write_idx(own / "t10k-images-idx3-ubyte.gz", np.zeros((10, 32, 32), dtype=np.uint8))
    with pytest.raises(UserError, match=r"images of \(32, 32\) pixels, not \(28, 28\).*dataset=npz"):
        _load(own)


def test_a_file_without_gz_in_its_name_may_be_gzip(own: Path) -> None:
    path = own / "train-labels-idx1-ubyte"
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert _load(own).train.labels[0] == 5


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_offline_without_files_one_line_says_what_to_put_where(cache: Path, name: str) -> None:
    with pytest.raises(UserError) as error:
        load_dataset(DownloadedConfig.model_validate({"name": name}))
    message = str(error.value)
    assert "\n" not in message
    assert all(file in message for file in IDX_FILES)
    assert str(cache / name) in message
    assert "dataset.folder=" in message
    assert message.count("ProxyError") == 2  # the primary address and its mirror
