"""The frontier of a sweep: drawn, printed, and logged with its parent run."""

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.core.errors import UserError
from pipelines.core.paths import REPOSITORY

if TYPE_CHECKING:
    from pipelines.report.frontier_files import FrontierFiles
    from pipelines.tracking.store import Store


class NothingToShowError(UserError):
    """The sweep has no run with an accuracy for the frontier."""


def publish(store: "Store", parent_id: str, folder: Path | None = None) -> None:
    """Writes and prints the frontier of a sweep, and logs its files with the parent run.

    Args:
      store: where the sweep is.
      parent_id: the sweep's parent run.
      folder: where the files go; None is outputs/frontier/<experiment> in the repository. If it cannot be written, the
        artifacts are the only copy, and a line says so.

    Raises:
      NothingToShowError: no run of the sweep finished, or all had canaries in their data.
      UserError: the store fails; the files are written anyway.
    """
    from pipelines.report.frontier_files import write_frontier
    from pipelines.report.points import build_points
    from pipelines.tracking.listeners import reopen
    from pipelines.tracking.read import read_population, read_rows

    rows = read_rows(store, parent_id=parent_id)
    if not (points := build_points(rows, partial(read_population, store))):
        raise NothingToShowError("no run of this sweep finished with an accuracy to show")
    folder = folder or REPOSITORY / "outputs" / "frontier" / store.experiment
    with tempfile.TemporaryDirectory() as scratch:
        files = write_frontier(points, Path(scratch))
        note = _copy(files, folder)
        try:
            reopen(store, parent_id).on_artifact("frontier", Path(scratch))
        finally:
            print(f"\n{files.table}\n")
            for path in files.paths if note is None else ():
                print(folder / path.name)
    if note is not None:
        print(f"{note}: the frontier's files are artifacts of run {parent_id}, in frontier/", file=sys.stderr)


def _copy(files: "FrontierFiles", folder: Path) -> str | None:
    """Copies the files to a folder; returns the reason if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in files.paths:
            Path(folder, path.name).write_bytes(path.read_bytes())
    except OSError as error:
        return f"{folder} is not writable ({error.strerror})"
    return None
