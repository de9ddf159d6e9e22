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


class NothingToShowError(UserError):
    """No run of a sweep has an accuracy that belongs on a frontier."""


def publish(store: "Store", parent_id: str, folder: Path | None = None) -> None:
    """Writes and prints the frontier of a sweep, and logs its files with the parent run.

    Args:
      store: where the sweep is.
      parent_id: the sweep's parent run.
      folder: where the files go; None is outputs/frontier/<experiment> in the repository. Where that cannot be written,
        the artifacts are the only copy, and a line says so.

    Raises:
      NothingToShowError: no run of the sweep finished, or all had canaries in their data.
      UserError: the store fails; the files are there all the same.
    """
    from pipelines.report.frontier import write_frontier
    from pipelines.report.points import build_points
    from pipelines.tracking.read import read_population, read_rows
    from pipelines.tracking.sweep import log_folder

    rows = read_rows(store, parent_id=parent_id)
    if not (points := build_points(rows, partial(read_population, store))):
        raise NothingToShowError("no run of this sweep finished with an accuracy to show")
    folder = folder or REPOSITORY / "outputs" / "frontier" / store.experiment
    with tempfile.TemporaryDirectory() as scratch:
        files = write_frontier(points, Path(scratch))
        note = _copy(files, folder)
        try:
            log_folder(store, parent_id, Path(scratch), "frontier")
        finally:
            print(f"\n{files.table}\n")
            for path in files.paths if note is None else ():
                print(folder / path.name)
    if note is not None:
        print(f"{note}: the frontier's files are artifacts of run {parent_id}, in frontier/", file=sys.stderr)


def _copy(files: "FrontierFiles", folder: Path) -> str | None:
    """Copies the files to a folder; returns why it cannot be written, if so."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in files.paths:
            Path(folder, path.name).write_bytes(path.read_bytes())
    except OSError as error:
        return f"{folder} is not writable ({error.strerror})"
    return None


def _show(files: "FrontierFiles") -> None:
    print(f"\n{files.table}\n")
    for path in files.paths:
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
