"""Measures the pipelines and their peers in turn: `python -m experiments.speed`, from the repository's root.

Every measurement is a separate process. The command prints tables, writes results and a figure, and logs all of it as
one MLflow run. It leaves out peers whose environments `make bench` has not built yet, and says so.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from experiments.speed.subject import SECTIONS
from pipelines.core.errors import UserError
from pipelines.core.paths import REPOSITORY

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    chosen = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _refuse(chosen)
        if chosen.list:
            return _list(chosen)
        if chosen.render:
            return _render()
        from experiments.speed.session import run  # imported late, since it imports MLflow

        run(chosen)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the MLflow run is marked KILLED and keeps what was measured", file=sys.stderr)
        return INTERRUPTED
    return 0


def parser() -> argparse.ArgumentParser:
    """Describes the command line."""
    found = argparse.ArgumentParser(
        prog="python -m experiments.speed",
        description="Measures the pipelines and their peers in turn, each in a fresh process.",
        epilog="Peers with environments of their own: make bench builds them.",
    )
    found.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)} (default: all)", default=[]
    )
    found.add_argument("--repeats", type=_count, default=3, metavar="N", help="turns of each (default: %(default)s)")
    found.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these subjects; see --list")
    found.add_argument("--quick", action="store_true", help="one turn in a short form: for a look, not for a record")
    found.add_argument(
        "--cores", type=_count, default=2, metavar="N", help="cores for every measurement (default: %(default)s)"
    )
    found.add_argument(
        "--data", metavar="FOLDER", default=_data_folder(),
        help="MNIST's raw files (default: mnist/ in $PIPELINES_DATA, else the cache, else a download)",
    )  # fmt: skip
    found.add_argument("--uri", help="MLflow store, as tracking.uri (default: mlflow.db in the repository)")
    found.add_argument(
        "--output", type=Path, default=REPOSITORY / "outputs" / "speed", metavar="FOLDER",
        help="where results go (default: outputs/speed)",
    )  # fmt: skip
    form = found.add_mutually_exclusive_group()
    form.add_argument("--record", action="store_true", help="write the record of these sections, also in the README")
    form.add_argument("--render", action="store_true", help="only draw README and figure anew from results.json")
    form.add_argument("--list", action="store_true", help="only list sections and subjects")
    return found


def _refuse(chosen: argparse.Namespace) -> None:
    unknown = [section for section in chosen.sections if section not in SECTIONS]
    if unknown:
        raise UserError(f"section {unknown[0]} is unknown; choose among {', '.join(SECTIONS)}")
    if chosen.record and (chosen.quick or chosen.only):
        raise UserError("--record takes whole sections in their full form; drop --quick and --only")


def _list(chosen: argparse.Namespace) -> int:
    from experiments.speed.chapters import chapter

    for section in chosen.sections or SECTIONS:
        print(section)
        for subject in chapter(section).subjects:
            print(f"  {subject.name:20s} {subject.label}")
    return 0


def _render() -> int:
    from experiments.speed.record import FOLDER, RESULTS, write_readme, write_results
    from experiments.speed.results import read_json

    records = read_json(FOLDER / RESULTS)
    if not records:
        raise UserError(f"{FOLDER / RESULTS} does not exist yet; record first: python -m experiments.speed --record")
    for path in write_results(records, FOLDER):
        print(path)
    write_readme(records)
    return 0


def _data_folder() -> str | None:
    folder = Path(os.environ.get("PIPELINES_DATA", "")) / "mnist"
    return str(folder) if "PIPELINES_DATA" in os.environ and folder.is_dir() else None


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
