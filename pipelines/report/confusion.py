"""The confusion matrix of one run."""

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

COUNTS_UP_TO = 20
"""Classes up to which every cell shows its count."""
LEFT, RIGHT, BELOW, ABOVE = 0.75, 1.1, 0.6, 0.4


def confusion_matrix(labels: NDArray[np.int64], predictions: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Counts examples by true class (row) and predicted class (column), shape (classes, classes)."""
    return np.bincount(labels * classes + predictions, minlength=classes * classes).reshape(classes, classes)


def confusion_figure(labels: NDArray[np.int64], predictions: NDArray[np.int64], classes: int) -> Figure:
    """Draws the matrix; colour is the share of the true class, on a square-root scale, so that rare errors are seen.

    Args:
      labels: int64, shape (n,), values in [0, classes).
      predictions: int64, shape (n,), values in [0, classes).
      classes: 2 to some 100; above 20 the counts give way to colour alone.
    """
    counts = confusion_matrix(labels, predictions, classes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # Places in inches: an automatic layout would draw everything several times over.
    side = float(np.clip(1.5 + 0.42 * classes, 2.5, 8.4))
    width, height = LEFT + side + RIGHT, BELOW + side + ABOVE
    figure = Figure(figsize=(width, height), dpi=130)
    axes = figure.add_axes((LEFT / width, BELOW / height, side / width, side / height))
    low, tall = (BELOW + 0.1 * side) / height, 0.8 * side / height
    bar = figure.add_axes(((LEFT + side + 0.2) / width, low, 0.17 / width, tall))
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    axes.set_title(f"{100 * np.trace(counts) / max(counts.sum(), 1):.1f} % of {counts.sum():,} correct", fontsize=11)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if classes <= COUNTS_UP_TO:
        axes.set_xticks(range(classes))
        axes.set_yticks(range(classes))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(20, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(20, integer=True))
    for row, column in np.argwhere(counts) if classes <= COUNTS_UP_TO else []:
        axes.text(
            column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=8,
            color="white" if shares[row, column] > 0.35 else "#222222",
        )  # fmt: skip
    figure.colorbar(image, cax=bar, label="share of the true class")
    return figure
