"""Raw files for the loaders' tests, and no network.

The published MNIST and Adult are used where PIPELINES_DATA names a folder that holds mnist/ and adult/. Elsewhere small
files of the same formats stand in, and the tests of published facts are skipped with a line that says so.
"""

import gzip
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

WriteIdx = Callable[[Path, NDArray[np.uint8]], None]
IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

# Rows of the published files, the first of each included; one has missing answers.
ADULT_TRAIN = """\
39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, 2174, 0, 40, \
United-States, <=50K
54, ?, 180211, Some-college, 10, Married-civ-spouse, ?, Husband, Asian-Pac-Islander, Male, 0, 0, 60, South, >50K
38, Private, 215646, HS-grad, 9, Divorced, Handlers-cleaners, Not-in-family, White, Male, 0, 0, 40, \
United-States, <=50K

"""
ADULT_TEST = """\
|1x3 Cross validator
25, Private, 226802, 11th, 7, Never-married, Machine-op-inspct, Own-child, Black, Male, 0, 0, 40, United-States, <=50K.
28, Local-gov, 336951, Assoc-acdm, 12, Married-civ-spouse, Protective-serv, Husband, White, Male, 0, 0, 40, \
United-States, >50K.

"""


@dataclass(frozen=True)
class Raw:
    """A folder of raw files; `published` tells whether they are the real ones."""

    folder: Path
    published: bool

    def require_published(self) -> None:
        if not self.published:
            pytest.skip("PIPELINES_DATA is not set: small files of the same format stand in for the published ones")


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    """Writes unsigned bytes as IDX, gzipped where the name ends in .gz."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    data = header + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_mnist_like(folder: Path, *, train: int = 12, test: int = 10) -> Path:
    """Writes the four files with `train` and `test` images; label i is (5 + i) % 10, every pixel of image i is i."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", train), ("t10k", test)):
        index = np.arange(count, dtype=np.uint8)
        images = np.broadcast_to(index[:, None, None], (count, 28, 28))
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte", ((index + 5) % 10).astype(np.uint8))
    return folder


def write_adult(folder: Path, train: str = ADULT_TRAIN, test: str = ADULT_TEST) -> Path:
    """Writes adult.data plain and adult.test gzipped."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adult.data").write_text(train)
    (folder / "adult.test.gz").write_bytes(gzip.compress(test.encode()))
    return folder


def _raw(name: str, build: Callable[[Path], Path], scratch: Path) -> Raw:
    root = os.environ.get("PIPELINES_DATA")
    return Raw(Path(root, name), True) if root else Raw(build(scratch / name), False)


@pytest.fixture(scope="session")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Raw:
    return _raw("mnist", write_mnist_like, tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="session")
def adult(tmp_path_factory: pytest.TempPathFactory) -> Raw:
    return _raw("adult", write_adult, tmp_path_factory.mktemp("raw"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a proxy that refuses: every request that leaves this machine fails at once."""
    for scheme in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(scheme, "http://127.0.0.1:9")
    for direct in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(direct, "127.0.0.1")
    folder = tmp_path / "cache"
    monkeypatch.setenv("PIPELINES_CACHE", str(folder))
    return folder
