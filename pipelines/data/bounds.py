"""The scale of a table's columns: bounds map a column onto [0, 1], and a column with an unsuitable range is named.

Bounds are public constants, such as the range of a questionnaire. No epsilon covers statistics of private rows. Lines
about columns without bounds therefore come from the test split, which no epsilon covers anyway.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.core.errors import UserError

Floats = NDArray[np.floating]
Bound = tuple[int, float, float]
"""Column, lowest and highest value."""
LARGEST, SMALLEST = 50.0, 0.01
"""Columns beyond these outweigh the others, or count for nothing.

One of three tried ranges past either end trained to chance.
"""
NAMED = 5


def bounds_of_archive(where: str, array: NDArray[np.generic], columns: int) -> tuple[Bound, ...]:
    """Reads an archive's `bounds`: shape (columns, 2), lowest and highest of each; NaN for a column without bounds.

    Args:
      where: the file, for messages.
      array: as saved.
      columns: of the table.

    Raises:
      UserError: another shape, or no numbers.
    """
    if array.shape != (columns, 2) or array.dtype.kind not in "iuf":
        raise UserError(
            f"{where}: bounds is {array.dtype} of shape {array.shape}; it needs the lowest and the highest value of "
            f"each column, shape ({columns}, 2), NaN where there is none"
        )
    pairs = array.astype(np.float64).tolist()
    return tuple((at, low, high) for at, (low, high) in enumerate(pairs) if not (np.isnan(low) and np.isnan(high)))


def require_sound(where: str, bounds: Sequence[Bound], columns: int) -> None:
    """Refuses bounds that no column can have.

    Raises:
      UserError: a column that is not there or named twice, or a lowest value that is not below the highest.
    """
    named = [column for column, _, _ in bounds]
    for column, low, high in bounds:
        if not 0 <= column < columns:
            raise UserError(f"{where}: bounds of column {column}, which is not there; columns are 0 to {columns - 1}")
        if named.count(column) > 1:
            raise UserError(f"{where}: bounds name column {column} twice; keep one of them")
        if not (np.isfinite([low, high]).all() and low < high):
            raise UserError(f"{where}: bounds of column {column} are {low:g} and {high:g}; give the lower one first")


def scaled(table: Floats, bounds: Sequence[Bound]) -> Floats:
    """Clips columns to their bounds and maps the bounds onto 0 and 1; values that are not finite stay."""
    out = table.astype(np.float64)
    for column, low, high in bounds:
        values = out[:, column]
        inside = (np.clip(values, low, high) - low) / (high - low)
        out[:, column] = np.where(np.isfinite(values), inside, values)
    return out


def remarks_on(where: str, tested: Floats, bounds: Sequence[Bound]) -> tuple[str, ...]:
    """Lines about columns whose range is wrong for training, judged by the test split, which no epsilon covers.

    Args:
      where: the file, for the lines.
      tested: the table of the test split as saved; values may be infinite or NaN.
      bounds: the declared ones.
    """
    lines = []
    for column, low, high in bounds:
        outside = int(np.count_nonzero((tested[:, column] < low) | (tested[:, column] > high)))
        if outside:
            lines.append(
                f"{where}: {outside:,} of {len(tested):,} test values of column {column} lie outside its bounds "
                f"{low:g} and {high:g}, and were clipped to them"
            )
    with np.errstate(invalid="ignore", over="ignore"):
        sizes = np.abs(tested.astype(np.float64)).max(axis=0)
    sizes[[column for column, _, _ in bounds]] = 1.0
    wrong = np.flatnonzero((sizes > LARGEST) | ((sizes > 0) & (sizes < SMALLEST)))
    if len(wrong):
        lines.append(_unscaled(where, tested, wrong))
    return tuple(lines)


def _unscaled(where: str, tested: Floats, wrong: NDArray[np.intp]) -> str:
    spans = [(int(at), tested[:, at].min(), tested[:, at].max()) for at in wrong[:NAMED]]
    said = ", ".join(f"{at} ({low:g} to {high:g})" for at, low, high in spans)
    more = f" and {len(wrong) - NAMED:,} more" if len(wrong) > NAMED else ""
    example = ",".join(f"[{at},{0 - _above(-low):.15g},{_above(high):.15g}]" for at, low, high in spans)
    return (
        f"{where}: column{'s' * (len(wrong) > 1)} {said}{more} of x_test {'are' if len(wrong) > 1 else 'is'} too large "
        "or too small to train beside others of about 1; state their bounds from their meaning, not from the training "
        f"rows, such as 'dataset.bounds=[{example}]' (column, lowest, highest), or as an array bounds of shape "
        "(columns, 2) in the archive: they are then mapped onto [0, 1]"
    )


def _above(value: float) -> float:
    """Rounds a value up to one digit; 0 for a negative value."""
    if value <= 0:
        return 0.0
    unit = 10.0 ** np.floor(np.log10(value))
    return float(np.ceil(value / unit) * unit)
