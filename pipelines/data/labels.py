"""Reads labels and client ids, one integer for each example, and says how to fix other arrays."""

import numpy as np
from numpy.typing import NDArray

from pipelines.core.errors import UserError

Array = NDArray[np.generic]


def integers(where: str, key: str, array: Array, inputs: tuple[str, Array]) -> NDArray[np.int64]:
    """Returns one integer for each example.

    Args:
      where: the file, for messages.
      key: of the array.
      array: as saved.
      inputs: key and array of the examples' inputs.

    Raises:
      UserError: the array is no such array of integers; the line says how to make one.
    """
    examples = len(inputs[1])
    if np.issubdtype(array.dtype, np.integer) and array.shape == (examples,):
        return array.astype(np.int64)
    raise UserError(
        f"{where}: {key} is {array.dtype} of shape {array.shape}; it needs {examples} integers of shape "
        f"({examples},): {_remedy(key, array, inputs)}"
    )


def _remedy(key: str, array: Array, inputs: tuple[str, Array]) -> str:
    x_key, x = inputs
    if array.ndim == 0:
        return f"save one number for each row of {x_key}"
    if len(array) != len(x):
        if len(array) == x.shape[-1]:
            return f"the examples of {x_key} lie along its last axis: save numpy.moveaxis({x_key}, -1, 0)"
        return f"{key} and {x_key} must have the same number of rows"
    if array.ndim == 2 and array.shape[1] == 1:
        return "flatten with .ravel()"
    if array.ndim > 1:
        return _of_rows(key, array)
    return _of_kind(key, array)


def _of_rows(key: str, array: Array) -> str:
    if array.ndim == 2 and array.dtype.kind in "biuf":
        rows = array.astype(np.float64)
        if (((rows == 0) | (rows == 1)).all(axis=1) & (rows.sum(axis=1) == 1)).all():
            return f"its rows are one-hot: save {key}.argmax(axis=1)"
        if (rows >= 0).all() and np.allclose(rows.sum(axis=1), 1, atol=1e-3):
            return f"its rows are shares of classes: {key}.argmax(axis=1) takes the largest"
    return f"a model trains on one label for each example: save one column of it, such as {key}[:, 0]"


def _of_kind(key: str, array: Array) -> str:
    if array.dtype.kind == "b":
        return f"save {key}.astype(int)"
    if array.dtype.kind == "f":
        values = array.astype(np.float64)
        if not np.isfinite(values).all():
            return f"{key} holds NaN or infinity: remove those examples, then save {key}.astype(int)"
        if (values == np.round(values)).all():
            return f"its numbers are whole: save {key}.astype(int)"
        return f"its numbers are not whole, and labels must be classes; numpy.digitize({key}, edges) makes classes"
    return "number names with numpy.unique(names, return_inverse=True)"


def range_remedy(lowest: int, highest: int, classes: int) -> str:
    """How to turn integer labels of another range into 0..classes-1."""
    if lowest == 1 and highest == classes:
        return "they count from 1: subtract 1"
    if (lowest, highest, classes) == (-1, 1, 2):
        return "save (labels > 0).astype(int)"
    return "number them from 0 with numpy.unique(labels, return_inverse=True), or state more classes"
