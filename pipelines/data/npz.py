"""The user's own arrays, from one .npz archive."""

import difflib
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.config.data_settings import title
from pipelines.core.errors import UserError
from pipelines.data.bounds import Bound, bounds_of_archive, remarks_on, require_sound, scaled
from pipelines.data.dataset import Dataset
from pipelines.data.foreign import describe
from pipelines.data.labels import integers, range_remedy
from pipelines.data.split import Split

REQUIRED = ("x_train", "y_train", "x_test", "y_test")
OPTIONAL = ("client_ids", "classes", "bounds")
# numpy, zipfile and zlib raise these on damaged, encrypted or pickled members.
DAMAGED = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
OWNERS = re.compile(r"(client|user|subject|writer|patient|owner|group)s?(_?ids?)?", re.IGNORECASE)
"""Names of arrays that seem to hold the owner of each example."""
DARK = 0.01
"""Images without a pixel above this are nearly black, and hardly train."""
SQUARISH = 3
"""Largest ratio of the sides of an array that is taken for an image with its channels first."""
Arrays = dict[str, NDArray[Any]]


def load_npz(file: str, classes: int | None = None, bounds: Sequence[Bound] | None = None) -> Dataset:
    """Returns the dataset in an archive made with `numpy.savez`; its name is the file's, without .npz.

    | key | what | allowed |
    |---|---|---|
    | x_train, x_test | inputs | floats (n, features), or images (n, height, width[, channels]) as uint8 or in [0, 1] |
    | y_train, y_test | labels 0..classes-1 | any integers, shape (n,) |
    | client_ids | optional: who owns each training example | any integers, shape (n,) |
    | classes | optional: number of classes | one integer >= 2 |
    | bounds | optional: lowest and highest value of each feature | numbers, shape (features, 2), NaN for none |

    Images of uint8 are divided by 255. Features of rank 2 are clipped to their bounds and mapped onto [0, 1]. Features
    without bounds stay as they are, and a remark names those whose range is unsuitable for training.
    If neither the archive nor the caller states the number of classes, it is the largest label of both splits plus
    one. That number depends on private labels, so private pipelines refuse it.

    Args:
      file: path of the archive.
      classes: the number of classes; overrides the archive.
      bounds: of features; override the archive.

    Raises:
      UserError: the archive is missing, damaged or lacks a key, or an array has a wrong type, shape or range.
    """
    path = Path(file).expanduser()
    arrays, ignored = _read(path)
    inputs = {key: _inputs(path, key, arrays) for key in ("x_train", "x_test")}
    labels = [_integers(path, f"y_{part}", arrays) for part in ("train", "test")]
    remarks = _ignored(path, ignored)
    if arrays["x_test"].ndim == 2:
        declared = _bounds(path, arrays, bounds)
        remarks += remarks_on(f"dataset.file={path}", arrays["x_test"], declared)
        if declared:
            inputs = {key: _float32(scaled(arrays[key], declared)) for key in inputs}
    elif bounds is not None or "bounds" in arrays:
        raise UserError(f"dataset.file={path}: bounds are for features (n, features), and these are images; drop them")
    else:
        remarks += _dark(path, float(inputs["x_test"].max()))
    return Dataset(
        name=title("npz", file),
        train=Split(inputs["x_train"], labels[0]),
        test=Split(inputs["x_test"], labels[1]),
        classes=classes or _classes(path, arrays, np.concatenate(labels)),
        classes_stated=classes is not None or "classes" in arrays,
        client_ids=_integers(path, "client_ids", arrays) if "client_ids" in arrays else None,
        remarks=remarks,
    )


def _dark(path: Path, brightest: float) -> tuple[str, ...]:
    """One line if the test images are nearly black. No epsilon covers the test split."""
    if not 0 < brightest < DARK:
        return ()
    said = f"no pixel of x_test is above {brightest:.3g}, where 1 is white"
    return (f"dataset.file={path}: {said}; check whether they were divided twice",)


def _read(path: Path) -> tuple[Arrays, list[str]]:
    """Opens the archive without pickle: an archive of unknown origin must not run code.

    Returns:
      The known arrays, and the names of the unknown ones.
    """
    if path.is_dir():
        raise UserError(f"dataset.file={path} is a folder; give the path of one .npz archive")
    if not path.is_file():
        raise UserError(f"dataset.file={path} does not exist; give the path of an .npz archive")
    try:
        # Opened here, since np.load leaves a file open if it is no archive.
        with path.open("rb") as file:
            return _members(path, np.load(file, allow_pickle=False))
    except DAMAGED as error:
        _refuse_foreign(path)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"dataset.file={path} cannot be read ({reason}); save plain arrays of numbers with numpy.savez"
        ) from None


def _refuse_foreign(path: Path) -> None:
    if (kind := describe(path)) is not None:
        raise UserError(f"dataset.file={path} cannot be read as an .npz archive: {kind}") from None


def _members(path: Path, archive: Any) -> tuple[Arrays, list[str]]:
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise UserError(f"dataset.file={path} is a single array; save all of them with numpy.savez")
    missing = [key for key in REQUIRED if key not in archive.files]
    if missing:
        _refuse_foreign(path)
        raise UserError(
            f"dataset.file={path} lacks {', '.join(missing)}; it needs {', '.join(REQUIRED)}, may have "
            f"{' and '.join(OPTIONAL[:-1])}, features also {OPTIONAL[-1]}, and holds "
            f"{', '.join(archive.files) or 'nothing'}"
        )
    arrays = {key: archive[key] for key in (*REQUIRED, *OPTIONAL) if key in archive.files}
    ignored = [key for key in archive.files if key not in arrays]
    for key in ignored if "client_ids" not in arrays else ():
        if OWNERS.fullmatch(key) and _shape(archive, key) == arrays["y_train"].shape:
            raise UserError(
                f"dataset.file={path}: {key} seems to hold the owner of each example; save it as client_ids, "
                "so that the run uses the users of the data, or leave it out"
            )
    return arrays, ignored


def _shape(archive: Any, key: str) -> tuple[int, ...] | None:
    """The shape of an unknown array, if it can be read."""
    try:
        shape: tuple[int, ...] = archive[key].shape
    except DAMAGED:
        return None
    return shape


def _ignored(path: Path, names: list[str]) -> tuple[str, ...]:
    """One line about unknown arrays in the archive."""
    if not names:
        return ()
    near = [(name, found[0]) for name in names if (found := difflib.get_close_matches(name, OPTIONAL, n=1))]
    meant = "".join(f"; did you mean {known} by {name}?" for name, known in near)
    return (f"dataset.file={path}: {', '.join(names)} {'are' if len(names) > 1 else 'is'} not read{meant}",)


def _bounds(path: Path, arrays: Arrays, stated: Sequence[Bound] | None) -> tuple[Bound, ...]:
    where, columns = f"dataset.file={path}", arrays["x_test"].shape[1]
    declared = tuple(stated or ())
    if stated is None and "bounds" in arrays:
        declared = bounds_of_archive(where, arrays["bounds"], columns)
    require_sound(where if stated is None else "dataset.bounds", declared, columns)
    return declared


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
    if array.ndim == 4:
        _require_channels_last(where, key, array.shape)
    images = _images(where, array)
    return images[..., np.newaxis] if images.ndim == 3 else images


def _require_channels_last(where: str, key: str, shape: tuple[int, ...]) -> None:
    """Refuses images with channels first, PyTorch's order: they would be read as images three pixels high."""
    _, first, second, last = shape
    if first in (1, 3, 4) and last > 4 and max(second, last) <= SQUARISH * min(second, last):
        raise UserError(
            f"{where} has shape {shape}, which would be images {first} pixels high with {last} channels; channels "
            f"come last here: save {key}.transpose(0, 2, 3, 1)"
        )


def _features(where: str, array: NDArray[Any]) -> NDArray[np.float32]:
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(
            f"{where} is {array.dtype} of shape {array.shape}; cast features to float32, and divide flattened "
            "pixels by 255"
        )
    return _float32(array)


def _images(where: str, array: NDArray[Any]) -> NDArray[np.float32]:
    if array.dtype == np.uint8:
        if array.max() == 1:
            raise UserError(
                f"{where} is uint8 and holds 0 and 1 only, which would be divided by 255; save it as float32, or "
                "multiply it by 255"
            )
        return array.astype(np.float32) / np.float32(255)
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"{where} is {array.dtype}; save images as uint8 in 0..255 or as floats in [0, 1]")
    # Comparisons with NaN are false: the Dataset itself reports NaN.
    if ((array < 0) | (array > 1)).any():
        lowest, highest = np.nanmin(array), np.nanmax(array)
        remedy = "divide by the largest possible value, or save them as uint8 in 0..255"
        if -1 <= lowest < 0 < highest <= 1:
            remedy = "map [-1, 1] with (x + 1) / 2"
        elif lowest < 0:
            remedy = "undo their standardisation, with public constants"
        raise UserError(f"{where} spans {lowest:g}..{highest:g}; images of floats must lie in [0, 1]: {remedy}")
    return _float32(array)


def _float32(array: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # A value that is too large becomes infinity, which the Dataset reports.
        return array.astype(np.float32)


def _integers(path: Path, key: str, arrays: Arrays) -> NDArray[np.int64]:
    x_key = "x_test" if key == "y_test" else "x_train"
    return integers(f"dataset.file={path}", key, arrays[key], (x_key, arrays[x_key]))


def _classes(path: Path, arrays: Arrays, labels: NDArray[np.int64]) -> int:
    if "classes" in arrays:
        given = arrays["classes"]
        if given.size != 1 or not np.issubdtype(given.dtype, np.integer) or given.item() < 2:
            raise UserError(
                f"dataset.file={path}: classes must be one integer >= 2; got {given.dtype} {given.tolist()}"
            )
        return int(given.item())
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest > 0:
        raise UserError(
            f"dataset.file={path}: labels span {lowest}..{highest}; {range_remedy(lowest, highest, highest)}"
        )
    if highest >= len(labels):
        raise UserError(
            f"dataset.file={path}: labels reach {highest} with only {len(labels)} examples; number the classes from "
            "0, or give classes"
        )
    return highest + 1
