"""Choosing a dataset by name, digits, and the limit."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from pipelines.config.data_settings import DigitsConfig, DownloadedConfig, NpzConfig
from pipelines.core.errors import UserError
from pipelines.core.paths import REPOSITORY
from pipelines.data.load import load_dataset
from pipelines.data.split import public_order


def _own_archive(path: Path, n: int = 20) -> str:
    x = np.arange(n, dtype=np.float32)[:, None]
    y = np.arange(n) // (n // 2)  # sorted by class
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y, client_ids=np.arange(n) * 10)
    return str(path)


def test_digits_are_small_grey_images_split_1437_to_360() -> None:
    digits = load_dataset(DigitsConfig(name="digits"))
    assert digits.train.inputs.shape == (1437, 8, 8, 1)
    assert digits.test.inputs.shape == (360, 8, 8, 1)
    assert (digits.classes, digits.client_ids) == (10, None)
    assert (digits.train.inputs.min(), digits.train.inputs.max()) == (0, 1)


def test_digits_hold_each_source_image_once() -> None:
    from sklearn.datasets import load_digits

    digits = load_dataset(DigitsConfig(name="digits"))
    images = np.concatenate([digits.train.inputs, digits.test.inputs])
    labels = np.concatenate([digits.train.labels, digits.test.labels])
    back = np.argsort(public_order(1797))
    source = load_digits()
    assert np.array_equal(images[back, :, :, 0] * 16, source.images)
    assert np.array_equal(labels[back], source.target)


def test_public_order_never_moves() -> None:
    order = public_order(1797)
    assert order[:5].tolist() == [1146, 74, 1586, 78, 1280]
    assert hashlib.sha256(order.tobytes()).hexdigest().startswith("cb6c9feae2fa13b2")
    assert np.array_equal(np.sort(order), np.arange(1797))


def test_limit_keeps_a_mixed_training_subset_and_all_test_examples(tmp_path: Path) -> None:
    file = _own_archive(tmp_path / "own.npz")
    few = load_dataset(NpzConfig(name="npz", file=file, limit=10))
    assert (len(few.train), len(few.test)) == (10, 20)
    assert set(few.train.labels) == {0, 1}
    # The archive's example i has input i and client 10 * i: rows, labels and clients must move together.
    assert few.client_ids is not None
    assert np.array_equal(few.client_ids, few.train.inputs[:, 0] * 10)
    assert np.array_equal(few.train.labels, few.train.inputs[:, 0] // 10)


def test_a_smaller_limit_is_a_prefix_of_a_larger_one() -> None:
    small, large = (load_dataset(DigitsConfig(name="digits", limit=limit)) for limit in (50, 200))
    assert np.array_equal(small.train.inputs, large.train.inputs[:50])


def test_limit_beyond_the_training_examples_is_refused() -> None:
    with pytest.raises(UserError, match=r"^dataset\.limit=1438 exceeds the 1437 training examples of digits; lower"):
        load_dataset(DigitsConfig(name="digits", limit=1438))


def test_an_unknown_dataset_is_refused_with_every_option() -> None:
    with pytest.raises(UserError, match=r"^dataset=svhn is unknown; choose [^\n]+$") as error:
        load_dataset(DownloadedConfig(name="svhn"))
    assert all(path.stem in str(error.value) for path in (REPOSITORY / "conf" / "dataset").glob("*.yaml"))


def test_a_dataset_is_read_again_only_when_its_file_changes(tmp_path: Path) -> None:
    config = NpzConfig(name="npz", file=_own_archive(tmp_path / "mine.npz"))
    first = load_dataset(config)
    assert load_dataset(config) is first
    _own_archive(tmp_path / "mine.npz", 30)
    assert len(load_dataset(config).train) == 30
