"""Re-runs a recipe and compares it with its record: `python -m pipelines.reproduce experiments/digits_frontier`.

Exit code 0 if the epsilons, the noise and the steps are equal to 1e-6 and every accuracy lies in its band, else 1 with
the rows that drifted. How the bands follow from the recorded seeds, and why they do not fail by chance, says
`pipelines.report.drift`. `--record` is the only author of a recipe's results, figure and README table.
"""

import argparse
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

from pipelines.checkout import REPOSITORY
from pipelines.errors import UserError

if TYPE_CHECKING:
    from pipelines.recipe import Origin, Recipe, ResultRow
    from pipelines.report.drift import Cell, Key
    from pipelines.result import Provenance
    from pipelines.tracking.read import RunRow
    from pipelines.tracking.store import Store

FIGURE = "frontier.png"
BLOCK = re.compile(r"(?<=<!-- recorded -->\n).*(?=<!-- end of recorded -->)", re.DOTALL)
INTERRUPTED = 130
Form = Literal["record", "check", "quick"]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A finished sweep of a recipe.

    Attributes:
      runs: as MLflow has them.
      rows: the same in the form of `results.csv`.
      origin: what made them.
    """

    runs: "list[RunRow]"
    rows: "list[ResultRow]"
    origin: "Origin"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    chosen = _parser().parse_args(arguments)
    try:
        if chosen.record:
            return record(chosen.folder, chosen.uri)
        return check(chosen.folder, chosen.uri, form="quick" if chosen.quick else "check")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the sweep's runs are marked KILLED", file=sys.stderr)
        return INTERRUPTED


def check(folder: Path, uri: str | None, *, form: Form) -> int:
    """Runs a recipe, prints the comparison with its record, and returns the exit code.

    Args:
      folder: of the recipe.
      uri: MLflow store; None is a temporary one.
      form: check, or quick, which runs a part of the recorded rows.

    Raises:
      UserError: the folder is incomplete or corrupt, a run failed, or the data are not the recorded ones.
    """
    from pipelines.recipe import read_origin, read_recipe, read_results
    from pipelines.report.drift import build_cells, compare, drift_table

    recipe, origin = read_recipe(folder), read_origin(folder)
    recorded = build_cells(read_results(folder, recipe.bands.test_examples), "results.csv")
    measured = _measure(folder, recipe, form, uri)
    if measured.origin.data_sha256 != origin.data_sha256:
        raise UserError(f"the data have changed: sha256 {origin.data_sha256}, now {measured.origin.data_sha256}")
    now = build_cells(measured.rows, "this sweep")
    if form == "quick":
        recorded = {key: cell for key, cell in recorded.items() if key in now}
    comparisons = compare(recorded, now, recipe.bands)
    print(f"\n{folder.name}: record of commit {origin.commit[:12]} against {measured.origin.commit[:12]}")
    print(f"{drift_table(comparisons)}\n")
    if versions := _changed(origin.versions, measured.origin.versions):
        print(f"versions changed: {versions}")
    drifted = sum(bool(comparison.faults) for comparison in comparisons)
    if drifted:
        print(f"DRIFTED: {drifted} of {len(comparisons)} rows", file=sys.stderr)
        return 1
    print(f"reproduced: all {len(comparisons)} rows")
    return 0


def record(folder: Path, uri: str | None) -> int:
    """Runs a recipe and writes what it found as its record.

    Args:
      folder: of the recipe.
      uri: MLflow store; None is a temporary one.

    Raises:
      UserError: the recipe is missing or corrupt, a run failed, or the folder is not writable.
    """
    from pipelines.recipe import RECORD, RESULTS, read_recipe, write_results
    from pipelines.report.drift import build_cells
    from pipelines.report.frontier import write_frontier

    recipe = read_recipe(folder)
    measured = _measure(folder, recipe, "record", uri)
    cells = build_cells(measured.rows, "this sweep")
    if few := [cell.run.pipeline for cell in cells.values() if len(cell.seeds) < 2]:
        raise UserError(f"{folder.name}: the record of {few[0]} has one seed; a band needs at least two")
    with tempfile.TemporaryDirectory() as scratch:
        png = write_frontier(measured.runs, Path(scratch)).png
        write_results(folder, measured.rows, measured.origin)
        shutil.copyfile(png, folder / FIGURE)
    write_readme(folder, cells, measured.origin)
    print(f"recorded {len(measured.rows)} runs: {', '.join(str(folder / name) for name in (RESULTS, RECORD, FIGURE))}")
    if not re.fullmatch("[0-9a-f]{40}", measured.origin.commit):
        print("note: the checkout has changes, so that no commit holds what ran; commit, then record again")
    return 0


def _measure(folder: Path, recipe: "Recipe", form: Form, uri: str | None) -> Measured:
    """Runs one form of a recipe in a store of its own, or in the given one."""
    with tempfile.TemporaryDirectory(prefix="privacy-pipelines-") as scratch:
        overrides = [*recipe.sweep, *getattr(recipe, form)]
        print(f"python -m pipelines.run -m {' '.join(overrides)}", flush=True)
        store, runs = _sweep(f"reproduce-{folder.resolve().name}", overrides, uri or f"sqlite:///{scratch}/runs.db")
        measured = _read(store, runs, overrides, Path(scratch))
    if uri is None:
        print("these runs were in a temporary store, which is gone; --uri sqlite:///runs.db keeps them")
    from pipelines.recipe import check_share

    for row in measured.rows:
        check_share(row, recipe.bands.test_examples, f"{row.pipeline} seed={row.seed}")
    return measured


def _sweep(experiment: str, overrides: list[str], uri: str) -> "tuple[Store, list[RunRow]]":
    """Runs the sweep as its users do, and returns its finished runs; none is left open whatever happens."""
    from pipelines.tracking.orphans import close_orphans
    from pipelines.tracking.read import read_rows
    from pipelines.tracking.store import open_store

    store = open_store(uri, experiment)
    before = {row.run_id for row in read_rows(store)}
    values = {"tracking.uri": store.uri, "tracking.experiment": experiment}
    tracking = [*(f"{key}={_quoted(value)}" for key, value in values.items()), "tracking.log_model=false"]
    try:
        code = _run_process([sys.executable, "-u", "-m", "pipelines.run", "-m", *overrides, *tracking])
    finally:
        # The sweep closes its runs itself, unless it was killed.
        close_orphans(store)
    runs = [row for row in read_rows(store) if row.run_id not in before and "pipeline" in row.tags]
    if code or not runs:
        raise UserError(f"the sweep ended with exit code {code} after {len(runs)} runs; its own lines above say why")
    return store, runs


def _run_process(command: list[str]) -> int:
    """Runs a command to its end and returns its exit code; an interruption reaches it exactly once."""

    def interrupt(_signum: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    # In a session of its own: a terminal would otherwise interrupt the sweep itself, and again while it cleans up.
    process = subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _read(store: "Store", runs: "list[RunRow]", overrides: list[str], scratch: Path) -> Measured:
    """Reads each run's own result, which has its floats in full."""
    from pipelines.recipe import ResultRow
    from pipelines.result import RunResult
    from pipelines.tracking.store import translated_errors

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    rows = []
    for run in runs:
        with translated_errors(store.uri):
            path = store.client.download_artifacts(run.run_id, "result.json", str(scratch))
            steps = max(metric.step for metric in store.client.get_metric_history(run.run_id, "test/accuracy"))
        result = RunResult.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        target = run.params["privacy.epsilon"]
        epsilon = None if target == "null" else float(target)
        rows.append(ResultRow.of(result, pipeline=run.tags["pipeline"], target_epsilon=epsilon, steps=steps))
    rows.sort(key=lambda row: (row.pipeline, row.target_epsilon or 0.0, row.seed))
    return Measured(runs=runs, rows=rows, origin=_origin(rows, overrides, result.provenance))


def _origin(rows: "list[ResultRow]", overrides: list[str], provenance: "Provenance") -> "Origin":
    from pipelines.recipe import Origin

    return Origin(
        command=f"python -m pipelines.run -m {' '.join(overrides)}",
        commit=provenance.commit,
        lock_sha256=provenance.lock_sha256,
        data_sha256=provenance.data_sha256,
        seeds=tuple(sorted({row.seed for row in rows})),
        versions=provenance.versions,
        platform=f"{platform.system()} {platform.machine()}",
    )


def _quoted(value: str) -> str:
    """A value that Hydra takes as it is."""
    return "'" + value.replace("'", "\\'") + "'"


def write_readme(folder: Path, cells: "dict[Key, Cell]", origin: "Origin") -> None:
    """Puts the record between the README's two marks, where it has them."""
    from pipelines.report.drift import markdown_table

    versions = ", ".join(f"{name} {version}" for name, version in origin.versions.items())
    table = (
        f"{markdown_table(cells)}\n\n`{origin.command}`\n\n"
        f"Commit {origin.commit}; {origin.platform}; {versions}. Every run is in "
        "`results.csv`, what made them in `record.json`.\n"
    )
    path = folder / "README.md"
    if path.is_file():
        path.write_text(BLOCK.sub(lambda _: table, path.read_text(encoding="utf-8")), encoding="utf-8")


def _changed(recorded: dict[str, str], now: dict[str, str]) -> str:
    names = [name for name in recorded if recorded[name] != now.get(name)]
    return ", ".join(f"{name} {recorded[name]} -> {now.get(name, 'absent')}" for name in names)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.reproduce",
        description="Re-runs a recipe of experiments/ and compares with its record; exit code 1 if anything drifted.",
    )
    parser.add_argument("folder", type=Path, help="of the recipe, such as experiments/digits_frontier")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--quick", action="store_true", help="only a part of the recorded rows")
    form.add_argument("--record", action="store_true", help="write the record instead of comparing with it")
    parser.add_argument("--uri", help="MLflow store, as tracking.uri (default: a temporary one)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
