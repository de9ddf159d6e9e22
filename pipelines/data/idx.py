"""MNIST and Fashion-MNIST in the IDX format, as first published."""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.core.errors import UserError
from pipelines.data.dataset import Dataset
from pipelines.data.raw import Content, RawFile, read_raw
from pipelines.data.split import Split

SIDE = 28
CLASSES = 10
MAGIC = {1: 0x00000801, 3: 0x00000803}

MNIST_HOSTS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
FASHION_HOSTS = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)


def _published(name: str, hosts: tuple[str, ...], *md5s: str) -> RawFile:
    return RawFile(name=name, md5s=frozenset(md5s), urls=tuple(f"{host}{name}.gz" for host in hosts))


# In the order train images, train labels, test images, test labels. MNIST: md5 of the gzipped and the unpacked file.
FILES: dict[str, tuple[RawFile, ...]] = {
    "mnist": (
        _published(
            "train-images-idx3-ubyte",
            MNIST_HOSTS,
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "6bbc9ace898e44ae57da46a324031adb",
        ),
        _published(
            "train-labels-idx1-ubyte",
            MNIST_HOSTS,
            "d53e105ee54ea40749a09fcbcd1e9432",
            "a25bea736e30d166cdddb491f175f624",
        ),
        _published(
            "t10k-images-idx3-ubyte",
            MNIST_HOSTS,
            "9fb629c4189551a2d022fa330f9573f3",
            "2646ac647ad5339dbf082846283269ea",
        ),
        _published(
            "t10k-labels-idx1-ubyte",
            MNIST_HOSTS,
            "ec29112dd5afa0611ce80d1b7f02629c",
            "27ae3e4e09519cfbb04c329615203637",
        ),
    ),
    "fashion_mnist": (
        _published("train-images-idx3-ubyte", FASHION_HOSTS, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        _published("train-labels-idx1-ubyte", FASHION_HOSTS, "25c81989df183df01b3e8a0aad5dffbe"),
        _published("t10k-images-idx3-ubyte", FASHION_HOSTS, "bef4ecab320f06d8554ea6380940ec79"),
        _published("t10k-labels-idx1-ubyte", FASHION_HOSTS, "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
}


def load_idx(name: str, folder: str | None) -> Dataset:
    """Returns 28 x 28 grey images, float32 of shape (n, 28, 28, 1) in [0, 1], and their ten classes.

    Args:
      name: one of `FILES`.
      folder: where the four files lie; None uses the cache, then a download.

    Raises:
      UserError: a file is missing, damaged or not IDX, or images and labels do not match.

    Source: LeCun et al. 1998, doi:10.1109/5.726791 (MNIST); Xiao et al. 2017, arXiv:1708.07747 (Fashion-MNIST).
    """
    train_images, train_labels, test_images, test_labels = read_raw(name, FILES[name], folder)
    return Dataset(
        name=name,
        train=_split(train_images, train_labels),
        test=_split(test_images, test_labels),
        classes=CLASSES,
        public=all(content.genuine for content in (train_images, train_labels, test_images, test_labels)),
    )


def _split(images: Content, labels: Content) -> Split:
    pixels, classes = _parse(images, rank=3), _parse(labels, rank=1)
    if pixels.shape[1:] != (SIDE, SIDE):
        raise UserError(
            f"{images.path} holds images of {pixels.shape[1:]} pixels, not ({SIDE}, {SIDE}); for another size save "
            "the arrays as .npz and use dataset=npz"
        )
    if len(pixels) != len(classes):
        raise UserError(
            f"{images.path} holds {len(pixels)} images but {labels.path} {len(classes)} labels; they must be a pair"
        )
    if classes.size and classes.max() >= CLASSES:
        raise UserError(f"{labels.path} holds label {classes.max()}; labels must lie in 0..{CLASSES - 1}")
    scaled = pixels.astype(np.float32)[..., np.newaxis]
    scaled /= 255
    return Split(scaled, classes.astype(np.int64))


def _parse(content: Content, *, rank: Literal[1, 3]) -> NDArray[np.uint8]:
    """Reads an IDX array of unsigned bytes: magic number, one big-endian int32 per axis, then exactly the bytes."""
    path, data = content.path, content.data
    header = 4 * (1 + rank)
    magic = int.from_bytes(data[:4], "big")
    if len(data) < header or magic != MAGIC[rank]:
        kind = "images" if rank == 3 else "labels"
        raise UserError(
            f"{path} is not an IDX file of {kind}: it starts with 0x{magic:08x} and has {len(data)} bytes, but needs "
            f"0x{MAGIC[rank]:08x} and a header of {header}; replace it with the published file"
        )
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", count=rank, offset=4))
    if len(data) != header + math.prod(shape):
        raise UserError(
            f"{path} has {len(data)} bytes, but its header promises {header + math.prod(shape)} for shape {shape}; "
            "replace it with a complete copy"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
