"""What all still figures share: text is text, and no warning of a figure reaches the terminal."""

import warnings
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

# Names of data and settings may hold a $, which is no formula, and must not fail a run that is done.
matplotlib.rcParams["text.parse_math"] = False


def blank(width: float, height: float, dpi: int) -> Figure:
    """A figure of that many inches without anything on it, which makes room for what is put around its axes."""
    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def save(figure: Figure, path: Path) -> None:
    """Writes a figure; labels without room and glyphs that the font lacks are nothing that its reader could mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure.savefig(path)
