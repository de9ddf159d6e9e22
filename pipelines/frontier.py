"""Accuracy against privacy of the runs in an experiment: `python -m pipelines.frontier`.

Prints a table and writes frontier.csv, frontier.png and frontier.html, which opens offline.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.core.errors import UserError
from pipelines.core.paths import REPOSITORY
from pipelines.core.process import exit_after
from pipelines.tracking.address import URI_HELP

if TYPE_CHECKING:
    from pipelines.report.frontier_files import FrontierFiles
    from pipelines.report.points import Point


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    chosen = _parser().parse_args(arguments)
    try:
        # Imported late, so that --help answers at once.
        from pipelines.recipes.recorded_points import draw_recorded
        from pipelines.report.frontier_files import write_frontier

        recipes = chosen.recipe or ()
        name = "-".join(folder.resolve().name for folder in recipes) or chosen.parent or chosen.experiment
        output = chosen.output or REPOSITORY / "outputs" / "frontier" / name
        _show(draw_recorded(recipes, output) if recipes else write_frontier(_tracked(chosen), output))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _tracked(chosen: argparse.Namespace) -> "list[Point]":
    """The runs of an experiment or of a sweep."""
    from pipelines.report.points import build_points
    from pipelines.tracking.read import read_population, read_rows
    from pipelines.tracking.store import open_store

    store = open_store(chosen.uri, chosen.experiment, create=False)
    rows = read_rows(store, parent_id=chosen.parent)
    return build_points(rows, partial(read_population, store))


def _show(files: "FrontierFiles") -> None:
    print(f"\n{files.table}\n")
    for path in files.paths:
        print(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.frontier",
        description="Table and figures of accuracy against privacy, from the finished runs of an experiment, "
        "or from the records of recipes.",
    )
    parser.add_argument("--experiment", default="digits", help="tracking experiment (default: %(default)s)")
    parser.add_argument("--parent", metavar="RUN_ID", help="only the runs of this sweep")
    parser.add_argument(
        "--recipe", type=Path, nargs="+", metavar="FOLDER", help="show the recorded points of these recipes instead"
    )
    parser.add_argument("--uri", help=URI_HELP)
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="where the files go (default: outputs/frontier/EXPERIMENT)"
    )
    return parser


if __name__ == "__main__":
    exit_after(main)
