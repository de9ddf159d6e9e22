"""Accuracy against privacy of the runs in an MLflow experiment: `python -m pipelines.frontier`.

Prints a table and writes frontier.csv, frontier.png and frontier.html, which opens offline.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.checkout import REPOSITORY
from pipelines.ending import exit_after
from pipelines.errors import UserError

if TYPE_CHECKING:
    from pipelines.report.frontier import FrontierFiles
    from pipelines.report.points import Point
    from pipelines.tracking.store import Store


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    chosen = _parser().parse_args(arguments)
    try:
        # Late, so that --help answers at once.
        from pipelines.report.frontier import write_frontier
        from pipelines.report.recorded import draw_recorded

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


def publish(store: "Store", parent_id: str, folder: Path | None = None) -> "FrontierFiles":
    """Writes and prints the frontier of a sweep, and logs its files with the parent run.

    Args:
      store: where the sweep is.
      parent_id: the sweep's parent run.
      folder: where the files go; None is outputs/frontier/<experiment> in the repository.

    Raises:
      UserError: no run of the sweep finished, all had canaries in their data, or a file or artifact cannot be written.
    """
    from pipelines.report.frontier import write_frontier
    from pipelines.report.points import build_points
    from pipelines.tracking.read import read_population, read_rows
    from pipelines.tracking.sweep import log_folder

    rows = read_rows(store, parent_id=parent_id)
    if not (points := build_points(rows, partial(read_population, store))):
        raise UserError("no run of this sweep finished with an accuracy to show")
    files = write_frontier(points, folder or REPOSITORY / "outputs" / "frontier" / store.experiment)
    # From a folder of its own: the other one may hold older files.
    with tempfile.TemporaryDirectory() as scratch:
        for path in (files.csv, files.png, files.html):
            Path(scratch, path.name).write_bytes(path.read_bytes())
        log_folder(store, parent_id, Path(scratch), "frontier")
    _show(files)
    return files


def _show(files: "FrontierFiles") -> None:
    print(f"\n{files.table}\n")
    for path in (files.csv, files.png, files.html):
        print(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.frontier",
        description="Table and figures of accuracy against privacy, from the finished runs of an MLflow experiment, "
        "or from the records of recipes.",
    )
    parser.add_argument("--experiment", default="digits", help="MLflow experiment (default: %(default)s)")
    parser.add_argument("--parent", metavar="RUN_ID", help="only the runs of this sweep")
    parser.add_argument(
        "--recipe", type=Path, nargs="+", metavar="FOLDER", help="instead: the recorded points of these recipes"
    )
    parser.add_argument("--uri", help="MLflow store, as tracking.uri (default: mlflow.db in the repository)")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="where the files go (default: outputs/frontier/EXPERIMENT)"
    )
    return parser


if __name__ == "__main__":
    exit_after(main)
