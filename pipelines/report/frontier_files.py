"""Writes a frontier in every form."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.core.paths import make_private
from pipelines.core.terminal import decoration
from pipelines.report.drawing import save
from pipelines.report.figure import frontier_figure
from pipelines.report.interactive import frontier_html
from pipelines.report.panels import build_frontier
from pipelines.report.points import Point
from pipelines.report.published_results import PublishedPoint, Reference
from pipelines.report.table import frontier_table, write_csv


@dataclass(frozen=True, kw_only=True)
class FrontierFiles:
    """What was written, and the table for the terminal."""

    csv: Path
    png: Path
    html: Path
    table: str

    @property
    def paths(self) -> list[Path]:
        """The written files; a figure that could not be drawn is left out."""
        return [path for path in (self.csv, self.png, self.html) if path.exists()]


def write_frontier(
    points: Sequence[Point],
    folder: Path,
    published: Sequence[PublishedPoint] = (),
    references: Sequence[Reference] = (),
) -> FrontierFiles:
    """Writes frontier.csv, frontier.png and frontier.html to a folder, which is created if it is missing.

    Args:
      points: of our own runs.
      folder: where the files go.
      published: by others; drawn beside them.
      references: other methods without privacy; drawn as lines.

    Raises:
      UserError: no point, or the folder is not writable.
    """
    frontier = build_frontier(points, published, references)
    files = FrontierFiles(
        csv=folder / "frontier.csv",
        png=folder / "frontier.png",
        html=folder / "frontier.html",
        table=frontier_table(frontier),
    )
    try:
        make_private(folder)
        write_csv(frontier, files.csv)
        files.png.unlink(missing_ok=True)  # an older figure would show other runs
        with decoration(files.png.name):
            save(frontier_figure(frontier), files.png)
        files.html.write_text(frontier_html(frontier), encoding="utf-8")
    except OSError as error:
        raise UserError(f"frontier folder {folder} is not writable ({error.strerror}); choose another") from None
    return files
