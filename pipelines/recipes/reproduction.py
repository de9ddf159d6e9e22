"""Re-runs recipes and compares with their records: `python -m pipelines.reproduce experiments/digits_frontier`.

The exit code is 0 if epsilons, noise and steps are equal to 1e-6 and every accuracy lies in its band; else it is 1, and
the rows that drifted are named. `pipelines.recipes.drift` explains how the bands follow from the recorded seeds. Only
`--record` writes a recipe's results, figure and README table.
"""

import argparse
import re
import shutil
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.core.errors import UserError
from pipelines.core.paths import REPOSITORY

if TYPE_CHECKING:
    from pipelines.recipes.drift import Cell, Key
    from pipelines.recipes.recipe import Recipe
    from pipelines.recipes.record import Origin
    from pipelines.recipes.rerun import Command, Measured
    from pipelines.recipes.waterfall import WaterfallFiles
    from pipelines.report.frontier_files import FrontierFiles

BOTH_UNITS = "both_units.png"
INTERRUPTED = 130
QUICK_SEEDS = 10
"""Fewest seeds in the record of a quick form, since its bands depend on them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 1 if any recipe failed."""
    chosen = _parser().parse_args(arguments)
    one = record if chosen.record else check
    code = 0
    for folder in chosen.folders:
        since = time.monotonic()
        try:
            code = max(code, one(folder, chosen.uri, quick=chosen.quick))
            print(f"{folder.name} took {timedelta(seconds=round(time.monotonic() - since))}")
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            code = 1
        except KeyboardInterrupt:
            print("interrupted: the sweep's runs are marked KILLED", file=sys.stderr)
            return INTERRUPTED
    return code


def check(folder: Path, uri: str | None, *, quick: bool) -> int:
    """Runs a recipe, prints the comparison with its record, and returns the exit code.

    Args:
      folder: of the recipe.
      uri: tracking store; None is a temporary one.
      quick: whether to run the quick form, which is a part of the recorded rows or has its own record.

    Raises:
      UserError: the folder is incomplete or corrupt, a run failed, or the data are not the recorded ones.
    """
    from pipelines.recipes.drift import bands_in_words, build_cells, compare, drift_table
    from pipelines.recipes.recipe import Sweeps, read_recipe
    from pipelines.recipes.record import RecordFiles, read_origin, read_results

    recipe = read_recipe(folder)
    sweeps = recipe.quick if quick and isinstance(recipe.quick, Sweeps) else recipe
    files = RecordFiles.of(folder, quick=sweeps is not recipe)
    origin = read_origin(files)
    recorded = build_cells(read_results(files, recipe.bands.test_examples), files.results.name)
    part = recipe.quick if quick and not isinstance(recipe.quick, Sweeps) else None
    commands = sweeps.commands(part or sweeps.check)
    measured = _measure(folder, recipe, commands, uri)
    if measured.origin.data_sha256 != origin.data_sha256:
        raise UserError(f"the data have changed: sha256 {origin.data_sha256}, now {measured.origin.data_sha256}")
    drawn = _draw(folder, measured)
    print(f"\n{drawn.table}\n" if len(commands) > 1 else "", drawn.png, drawn.html, sep="\n")
    now = build_cells(measured.rows, "this sweep")
    if recipe.waterfall and not quick:
        waterfall = _draw_waterfall(folder, recipe, measured, now)
        print(f"{waterfall.png}\n\n{waterfall.table}")
    if part:
        recorded = {key: cell for key, cell in recorded.items() if key in now}
    comparisons = compare(recorded, now, recipe.bands)
    print(f"\n{folder.name}: record of commit {origin.commit[:12]} against {measured.origin.commit[:12]}")
    print(f"{drift_table(comparisons)}\n{bands_in_words(len(comparisons), recipe.bands)}\n")
    if versions := _changed(origin.versions, measured.origin.versions):
        print(f"versions changed: {versions}")
    if drifted := sum(bool(comparison.faults) for comparison in comparisons):
        print(f"DRIFTED: {drifted} of {len(comparisons)} rows of {folder.name}", file=sys.stderr)
        return 1
    print(f"reproduced: all {len(comparisons)} rows of {folder.name}")
    return 0


def record(folder: Path, uri: str | None, *, quick: bool) -> int:
    """Runs a recipe and writes its results as its record; returns the exit code.

    Args:
      folder: of the recipe.
      uri: tracking store; None is a temporary one.
      quick: whether to write the record of its quick form only, without figure and README.

    Raises:
      UserError: the recipe, or the record of one beside it, is missing or corrupt, a run failed, too few seeds, or the
        folder is not writable.
    """
    from pipelines.recipes.drift import build_cells
    from pipelines.recipes.recipe import Sweeps, read_recipe
    from pipelines.recipes.record import RecordFiles, write_results
    from pipelines.recipes.recorded_points import read_points
    from pipelines.report.published_results import read_published

    recipe = read_recipe(folder)
    sweeps = recipe.quick if quick else recipe
    if not isinstance(sweeps, Sweeps):
        raise UserError(f"{folder.name}: its quick form is a part of the whole record; use --record alone")
    read_published(folder)  # report missing or corrupt files before hours of training
    for other in () if quick else _beside(folder, recipe):
        read_points(other)
    measured = _measure(folder, recipe, sweeps.commands(sweeps.record), uri)
    cells = build_cells(measured.rows, "this sweep")
    least = QUICK_SEEDS if quick else 2
    if few := [cell for cell in cells.values() if len(cell.seeds) < least]:
        seeds = f"{few[0].label} has {len(few[0].seeds)} seeds"
        raise UserError(f"{folder.name}: the record of {seeds}; its band needs at least {least}")
    files = RecordFiles.of(folder, quick=quick)
    written = [files.results, files.origin]
    write_results(files, measured.rows, measured.origin)
    if not quick:
        written += _show(folder, recipe, measured, cells)
    print(f"recorded {len(measured.rows)} runs: {', '.join(map(str, written))}")
    _warn_of_changes(measured.origin)
    return 0


def _show(folder: Path, recipe: "Recipe", measured: "Measured", cells: "dict[Key, Cell]") -> list[Path]:
    """Writes the record's figures, their points and the README's table; returns the figures and points."""
    from pipelines.recipes.record_readme import write_readme
    from pipelines.report.published_results import read_published

    drawn = _draw(folder, measured)
    waterfall = _draw_waterfall(folder, recipe, measured, cells) if recipe.waterfall else None
    # Stages with a huge epsilon would stretch the frontier's axis too far; the waterfall shows them.
    figures = [drawn.csv, waterfall.png if waterfall else drawn.png]
    written = [Path(shutil.copyfile(path, folder / path.name)) for path in figures]
    written += [_draw_both_units(folder, recipe)] if recipe.beside else []
    write_readme(folder, cells, measured.origin, read_published(folder), waterfall.table if waterfall else None)
    print(drawn.html)
    return written


def _measure(folder: Path, recipe: "Recipe", commands: "Sequence[Command]", uri: str | None) -> "Measured":
    from pipelines.recipes.record import check_share
    from pipelines.recipes.rerun import measure

    measured = measure(_experiment(folder), commands, uri)
    for row in measured.rows:
        check_share(row, recipe.bands.test_examples, f"{row.pipeline} seed={row.seed}")
    return measured


def _draw(folder: Path, measured: "Measured") -> "FrontierFiles":
    """Writes the frontier of all parts with published results, in place of the frontier of the last part."""
    from pipelines.report.frontier_files import write_frontier
    from pipelines.report.points import build_points
    from pipelines.report.published_results import read_published, read_references

    beside = read_published(folder), read_references(folder)
    return write_frontier(build_points(measured.runs, measured.populations.get), _output(folder), *beside)


def _draw_waterfall(folder: Path, recipe: "Recipe", measured: "Measured", cells: "dict[Key, Cell]") -> "WaterfallFiles":
    """Writes the waterfall next to the frontier."""
    from pipelines.recipes.stages import build_waterfall
    from pipelines.recipes.waterfall import write_waterfall
    from pipelines.report.points import build_points

    return write_waterfall(build_waterfall(recipe.waterfall, cells), build_points(measured.runs), _output(folder))


def _draw_both_units(folder: Path, recipe: "Recipe") -> Path:
    """Draws the new record and the records of `beside` in one figure."""
    from pipelines.recipes.recorded_points import draw_recorded

    output = _output(folder) / BOTH_UNITS.removesuffix(".png")
    drawn = draw_recorded([*_beside(folder, recipe), folder], output)
    return Path(shutil.copyfile(drawn.png, folder / BOTH_UNITS))


def _beside(folder: Path, recipe: "Recipe") -> list[Path]:
    return [folder.resolve().parent / name for name in recipe.beside]


def _output(folder: Path) -> Path:
    return REPOSITORY / "outputs" / "frontier" / _experiment(folder)


def _experiment(folder: Path) -> str:
    return f"reproduce-{folder.resolve().name}"


def _warn_of_changes(origin: "Origin") -> None:
    if not re.fullmatch("[0-9a-f]{40}", origin.commit):
        print("note: the checkout has changes, so no commit has the code that ran; commit, then record again")


def _changed(recorded: dict[str, str], now: dict[str, str]) -> str:
    names = [name for name in recorded if recorded[name] != now.get(name)]
    return ", ".join(f"{name} {recorded[name]} -> {now.get(name, 'absent')}" for name in names)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.reproduce",
        description="Re-runs recipes of experiments/ and compares with their records; exit code 1 if anything drifted.",
    )
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="folder", help="of a recipe, such as experiments/digits_frontier"
    )
    parser.add_argument("--quick", action="store_true", help="a form of two minutes at most")
    parser.add_argument("--record", action="store_true", help="write a new record; compare nothing")
    parser.add_argument("--uri", help="tracking store, as tracking.uri (default: a temporary one)")
    return parser
