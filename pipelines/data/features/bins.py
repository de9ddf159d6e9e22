"""Public bins of a table's numbers, so that a linear model can follow a curve. A run fits no edge."""

import numpy as np
from numpy.typing import NDArray

from pipelines.config.data_settings import BinnedColumn
from pipelines.core.errors import UserError


class Bins:
    """The inputs, followed by the indicators and the thresholds of each column in turn.

    Attributes:
      shape: of one example's features: (columns + indicators + thresholds,).
    """

    def __init__(self, features: tuple[int, ...], columns: tuple[BinnedColumn, ...]) -> None:
        """Places the edges.

        Args:
          features: of one example: (columns,).
          columns: the binned ones, with their settings.

        Raises:
          UserError: the data is no table, or has no such column.
        """
        if len(features) != 1:
            raise UserError(f"public bins need a table; this dataset has images of shape {features}; set features=none")
        for place, spec in enumerate(columns):
            if spec.column >= features[0]:
                raise UserError(
                    f"features.columns[{place}].column={spec.column} is not there; columns are 0 to {features[0] - 1}"
                )
        self._columns = [(spec, _edges(spec)) for spec in columns]
        self.shape = (features[0] + sum(len(edges) * _blocks(spec) for spec, edges in self._columns),)

    def __call__(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps rows, float32 (n, columns), to features, float32 (n, *shape)."""
        out = np.zeros((len(rows), *self.shape), np.float32)
        at = rows.shape[1]
        out[:, :at] = rows
        for spec, edges in self._columns:
            values = rows[:, spec.column, np.newaxis]
            reached = values >= edges  # (n, bins + 1)
            if spec.indicator:
                inside = reached.copy()
                inside[:, :-1] &= ~reached[:, 1:]
                out[:, at : at + len(edges)] = spec.indicator * inside
                at += len(edges)
            if spec.threshold:
                out[:, at : at + len(edges)] = spec.threshold * reached
                at += len(edges)
        return out


def _edges(spec: BinnedColumn) -> NDArray[np.float32]:
    return np.linspace(spec.lowest, spec.highest, spec.bins + 1).astype(np.float32)


def _blocks(spec: BinnedColumn) -> int:
    return (spec.indicator > 0) + (spec.threshold > 0)
