"""Runs the sweeps of a recipe as users do, and reads their results."""

import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType

from pipelines.core.errors import UserError
from pipelines.core.paths import REPOSITORY
from pipelines.core.provenance import Provenance
from pipelines.recipes.record import Origin, ResultRow
from pipelines.runs.result import RunResult
from pipelines.runs.spent import account_for_dead
from pipelines.tracking.listeners import reopen
from pipelines.tracking.orphans import close_orphans
from pipelines.tracking.read import VARIANT_TAG, RunRow, read_json, read_last_step, read_rows
from pipelines.tracking.store import Store, open_store

Command = tuple[str | None, tuple[str, ...]]
"""Variant and overrides of a sweep."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The finished sweeps of a recipe.

    Attributes:
      runs: as the tracking store has them.
      rows: the runs in the form of a record.
      populations: public number of units by the id of each private run.
      origin: of the runs.
    """

    runs: list[RunRow]
    rows: list[ResultRow]
    populations: dict[str, int]
    origin: Origin


def measure(experiment: str, commands: Sequence[Command], uri: str | None) -> Measured:
    """Runs sweeps one after the other, in a temporary store or in the given one.

    Args:
      experiment: of the runs in the tracking store.
      commands: the sweeps.
      uri: tracking store; None is a temporary one.

    Raises:
      UserError: a sweep failed, or the store cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="privacy-pipelines-") as scratch:
        store = open_store(uri or f"sqlite:///{scratch}/runs.db", experiment)
        before = {row.run_id for row in read_rows(store)}
        for number, (variant, overrides) in enumerate(commands, start=1):
            part = f"[part {number} of {len(commands)}] " if len(commands) > 1 else ""
            print(f"{part}{_in_words(overrides)}", flush=True)
            _sweep(store, overrides, variant)
        runs = _since(before, store)
        measured = _read(store, runs, "\n".join(_in_words(overrides) for _, overrides in commands))
    if uri is None:
        print("these runs were in a temporary store, which is deleted; --uri sqlite:///runs.db keeps them")
    return measured


def _since(before: set[str], store: Store) -> list[RunRow]:
    """New runs of pipelines, without the parent runs of sweeps."""
    return [row for row in read_rows(store) if row.run_id not in before and "pipeline" in row.tags]


def _in_words(overrides: Sequence[str]) -> str:
    return f"python -m pipelines.run -m {' '.join(overrides)}"


def _sweep(store: Store, overrides: Sequence[str], variant: str | None) -> None:
    """Runs one sweep and tags its runs with the variant; also after a failure, no run stays open."""
    before = {row.run_id for row in read_rows(store)}
    values = {"tracking.uri": store.uri, "tracking.experiment": store.experiment}
    tracking = [*(f"{key}={_quoted(value)}" for key, value in values.items()), "tracking.log_model=false"]
    try:
        code = run_process([sys.executable, "-u", "-m", "pipelines.run", "-m", *overrides, *tracking])
    finally:
        # The sweep closes its runs itself, unless it was killed.
        close_orphans(store)
        for line in account_for_dead(store):
            print(line, file=sys.stderr)
    runs = _since(before, store)
    if code or not runs:
        raise UserError(f"the sweep ended with exit code {code} after {len(runs)} runs; its own lines above say why")
    if variant is not None:
        for run in runs:
            reopen(store, run.run_id).on_tags({VARIANT_TAG: variant})


def run_process(command: list[str]) -> int:
    """Runs a command to its end and returns its exit code; an interruption reaches it exactly once."""

    def interrupt(_signum: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    # In its own session: otherwise the terminal would interrupt the sweep itself, and again while it cleans up.
    process = subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _read(store: Store, runs: list[RunRow], command: str) -> Measured:
    """Reads the result of each run, which has floats in full."""
    rows, provenances, populations = [], [], {}
    for run in runs:
        result = RunResult.from_dict(read_json(store, run.run_id, "result.json"))
        target = run.params["privacy.epsilon"]
        rows.append(
            ResultRow.of(
                result,
                pipeline=run.tags["pipeline"],
                variant=run.tags.get(VARIANT_TAG),
                target_epsilon=None if target == "null" else float(target),
                steps=read_last_step(store, run.run_id, "test/accuracy"),
            )
        )
        provenances.append(result.provenance)
        if result.guarantee is not None:
            populations[run.run_id] = result.guarantee.executed.population
    rows.sort(key=lambda row: (row.pipeline, row.variant or "", row.unit or "", row.target_epsilon or 0.0, row.seed))
    origin = _origin(rows, command, provenances)
    return Measured(runs=runs, rows=rows, populations=populations, origin=origin)


def _origin(rows: list[ResultRow], command: str, provenances: list[Provenance]) -> Origin:
    last = provenances[-1]
    return Origin(
        command=command,
        commit=last.commit,
        lock_sha256=last.lock_sha256,
        # Parts of a recipe may have different data, such as other features.
        data_sha256=" ".join(sorted({provenance.data_sha256 for provenance in provenances})),
        seeds=tuple(sorted({row.seed for row in rows})),
        versions=last.versions,
        platform=f"{platform.system()} {platform.machine()}",
    )


def _quoted(value: str) -> str:
    """Quotes a value so that Hydra takes it literally."""
    return "'" + value.replace("'", "\\'") + "'"
