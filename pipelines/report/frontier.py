"""Writes the frontier of a set of runs in every form."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import UserError
from pipelines.report.figure import frontier_figure
from pipelines.report.interactive import frontier_html
from pipelines.report.panels import build_frontier
from pipelines.report.points import build_points
from pipelines.report.table import frontier_table, write_csv
from pipelines.tracking.read import RunRow


@dataclass(frozen=True, kw_only=True)
class FrontierFiles:
    """What was written, and the table for the terminal."""

    csv: Path
    png: Path
    html: Path
    table: str


def write_frontier(rows: Iterable[RunRow], folder: Path) -> FrontierFiles:
    """Writes frontier.csv, frontier.png and frontier.html to a folder, which is made if need be.

    Raises:
      UserError: no finished run, or the folder is not writable.
    """
    frontier = build_frontier(build_points(rows))
    files = FrontierFiles(
        csv=folder / "frontier.csv",
        png=folder / "frontier.png",
        html=folder / "frontier.html",
        table=frontier_table(frontier),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(frontier, files.csv)
        frontier_figure(frontier).savefig(files.png)
        files.html.write_text(frontier_html(frontier), encoding="utf-8")
    except OSError as error:
        raise UserError(f"frontier folder {folder} is not writable ({error.strerror}); choose another") from None
    return files
