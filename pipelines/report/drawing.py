"""Shared by all still figures: text is drawn literally, and no warning of a figure reaches the terminal."""

import warnings
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

# Names of data and settings may contain a $. It is no formula, and must not make a finished run fail.
matplotlib.rcParams["text.parse_math"] = False


def blank(width: float, height: float, dpi: int) -> Figure:
    """An empty figure of a size in inches that makes room for labels around its axes."""
    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def save(figure: Figure, path: Path) -> None:
    """Writes a figure, without warnings about labels without room and missing glyphs, which a user cannot fix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure.savefig(path)
