"""The user's own arrays, from one .npz archive."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.dataset import Dataset, Split
from pipelines.errors import UserError

REQUIRED = ("x_train", "y_train", "x_test", "y_test")
OPTIONAL = ("client_ids", "classes")
# What numpy, zipfile and zlib raise on damaged, encrypted or pickled members.
DAMAGED = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
Arrays = dict[str, NDArray[Any]]


def load_npz(file: str, classes: int | None = None) -> Dataset:
    """Returns the dataset in an archive made with `numpy.savez`; its name is the file's, without .npz.

    | key | what | allowed |
    |---|---|---|
    | x_train, x_test | inputs | floats (n, features), or images (n, height, width[, channels]) as uint8 or in [0, 1] |
    | y_train, y_test | labels 0..classes-1 | any integers, shape (n,) |
    | client_ids | optional: who owns each training example | any integers, shape (n,) |
    | classes | optional: number of classes | one integer >= 2 |

    Images of uint8 are divided by 255. Features of rank 2 are taken as they are: scale them by public bounds.
    Where neither the archive nor the caller states the number of classes, it is the largest label of both splits plus
    one. That looks at the private labels, so private pipelines refuse it.

    Args:
      file: path of the archive.
      classes: the number of classes, instead of what the archive says.

    Raises:
      UserError: the archive is missing, damaged or lacks a key, or an array has a wrong type, shape or range.
    """
    path = Path(file).expanduser()
    arrays = _read(path)
    train = Split(_inputs(path, "x_train", arrays), _integers(path, "y_train", arrays))
    test = Split(_inputs(path, "x_test", arrays), _integers(path, "y_test", arrays))
    return Dataset(
        name=path.stem,
        train=train,
        test=test,
        classes=classes or _classes(path, arrays, np.concatenate([train.labels, test.labels])),
        classes_stated=classes is not None or "classes" in arrays,
        client_ids=_integers(path, "client_ids", arrays) if "client_ids" in arrays else None,
    )


def _read(path: Path) -> Arrays:
    """Opens the archive without pickle: an archive of unknown origin must not run code."""
    if not path.is_file():
        raise UserError(f"dataset.file={path} does not exist; give the path of an .npz archive")
    try:
        # Opened here, since np.load leaves a file open that turns out to be no archive.
        with path.open("rb") as file:
            return _members(path, np.load(file, allow_pickle=False))
    except DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"dataset.file={path} cannot be read ({reason}); save plain arrays of numbers with numpy.savez"
        ) from None


def _members(path: Path, archive: Any) -> Arrays:
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise UserError(f"dataset.file={path} is a single array; save all of them with numpy.savez")
    missing = [key for key in REQUIRED if key not in archive.files]
    if missing:
        raise UserError(
            f"dataset.file={path} lacks {', '.join(missing)}; it needs {', '.join(REQUIRED)}, may have "
            f"{' and '.join(OPTIONAL)}, and holds {', '.join(archive.files) or 'nothing'}"
        )
    return {key: archive[key] for key in (*REQUIRED, *OPTIONAL) if key in archive.files}


def _inputs(path: Path, key: str, arrays: Arrays) -> NDArray[np.float32]:
    array = arrays[key]
    where = f"dataset.file={path}: {key}"
    if array.ndim not in (2, 3, 4) or 0 in array.shape:
        raise UserError(
            f"{where} has shape {array.shape}; it needs (n, features), (n, height, width) or "
            "(n, height, width, channels), none of them 0"
        )
    if array.ndim == 2:
        return _features(where, array)
    images = _images(where, array)
    return images[..., np.newaxis] if images.ndim == 3 else images


def _features(where: str, array: NDArray[Any]) -> NDArray[np.float32]:
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(
            f"{where} is {array.dtype} of shape {array.shape}; cast features to float32, and divide flattened "
            "pixels by 255"
        )
    return _float32(array)


def _images(where: str, array: NDArray[Any]) -> NDArray[np.float32]:
    if array.dtype == np.uint8:
        return array.astype(np.float32) / np.float32(255)
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"{where} is {array.dtype}; save images as uint8 in 0..255 or as floats in [0, 1]")
    # Comparisons with NaN are false: the Dataset itself reports those.
    if ((array < 0) | (array > 1)).any():
        raise UserError(
            f"{where} spans {np.nanmin(array):g}..{np.nanmax(array):g}; images of floats must lie in [0, 1]: divide "
            "by the largest possible value, or save them as uint8 in 0..255"
        )
    return _float32(array)


def _float32(array: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # What does not fit becomes infinity, which the Dataset reports.
        return array.astype(np.float32)


def _integers(path: Path, key: str, arrays: Arrays) -> NDArray[np.int64]:
    array, examples = arrays[key], len(arrays["x_test" if key == "y_test" else "x_train"])
    if not np.issubdtype(array.dtype, np.integer) or array.shape != (examples,):
        raise UserError(
            f"dataset.file={path}: {key} is {array.dtype} of shape {array.shape}; it needs {examples} integers of "
            f"shape ({examples},): flatten with .ravel(), number names with numpy.unique(names, return_inverse=True)"
        )
    return array.astype(np.int64)


def _classes(path: Path, arrays: Arrays, labels: NDArray[np.int64]) -> int:
    if "classes" in arrays:
        given = arrays["classes"]
        if given.size != 1 or not np.issubdtype(given.dtype, np.integer) or given.item() < 2:
            raise UserError(
                f"dataset.file={path}: classes must be one integer >= 2; got {given.dtype} {given.tolist()}"
            )
        return int(given.item())
    highest = int(labels.max())
    if highest >= len(labels):
        raise UserError(
            f"dataset.file={path}: labels reach {highest} with only {len(labels)} examples; number the classes from "
            "0, or give classes"
        )
    return highest + 1
