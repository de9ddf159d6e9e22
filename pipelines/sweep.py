"""A sweep: one parent run with a child for every distinct configuration, and a frontier at the end.

Hydra's launchers may run the jobs in this process or in others, so what they share is a folder, named by an
environment variable that worker processes inherit.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from pipelines.config import PRIVATE_UNITS, Config
from pipelines.data.settings import titles
from pipelines.errors import UserError
from pipelines.progress import SweepProgress
from pipelines.scratch import scratch

if TYPE_CHECKING:
    from pipelines.tracking.store import Store

VARIABLE = "PIPELINES_SWEEP"
OmegaConf.register_new_resolver("scratch", scratch, replace=True)  # for conf/config.yaml, in every process of a sweep


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What every job of a sweep knows.

    Attributes:
      folder: shared by the jobs' processes.
      parent_id: the parent's MLflow run.
      uri, experiment: where it lives.
      runs: distinct configurations.
    """

    folder: Path
    parent_id: str
    uri: str
    experiment: str
    runs: int

    @classmethod
    def current(cls) -> "Sweep | None":
        """The sweep that this process belongs to."""
        folder = os.environ.get(VARIABLE)
        if folder is None:
            return None
        return cls(folder=Path(folder), **json.loads(Path(folder, "sweep.json").read_text()))

    def claim(self, config: Config) -> bool:
        """Takes a configuration; False if another job of the sweep has it already.

        Sweeping epsilon over all pipelines gives each non-private one the same run several times.
        """
        try:
            Path(self.folder, config.fingerprint).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def count_done(self) -> int:
        """Counts a run that has ended, and returns how many have in all processes: each gets a number of its own."""
        with Path(self.folder, "done").open("ab", buffering=0) as file:
            file.write(b".")
            return file.tell()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the sweep began."""
        return time.time() - Path(self.folder, "sweep.json").stat().st_mtime

    def record_failure(self, line: str) -> None:
        """Keeps a failed job's reason for the end of the sweep."""
        with Path(self.folder, "failures").open("a") as file:
            file.write(f"{line}\n")

    def failures(self) -> list[str]:
        """The reasons of all failed jobs so far."""
        path = Path(self.folder, "failures")
        return path.read_text().splitlines() if path.exists() else []

    def close(self) -> None:
        """Forgets the sweep."""
        os.environ.pop(VARIABLE, None)
        shutil.rmtree(self.folder, ignore_errors=True)


class OpenSweep(Callback):
    """Hydra calls this before the first job of a multirun."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Opens the parent run; ends the process if that fails, since Hydra only warns of a callback's exception."""
        try:
            self._open(config)
        except UserError as error:
            sys.exit(f"error: {error}")

    def _open(self, config: DictConfig) -> None:
        from pipelines.tracking.store import open_store
        from pipelines.tracking.sweep import start_sweep

        tracking, hydra = config.tracking, config.hydra
        overrides = list(hydra.overrides.task)
        swept = _swept(overrides, dict(hydra.sweeper.params or {}))
        datasets = _datasets(config.dataset, swept)
        store = open_store(tracking.uri, tracking.experiment or datasets)
        runs = count_distinct(swept, default=config.pipeline.name)
        name = hydra.runtime.choices.get("experiment") or "sweep"
        parent_id = start_sweep(
            store,
            name=f"{name} on {datasets} ({runs} runs)",
            note=f"A sweep over {', '.join(swept) or 'nothing'}. Its children are runs; its artifacts the frontier.",
            tags={"overrides": " ".join(overrides)},
        )
        shared = {"parent_id": parent_id, "uri": store.uri, "experiment": store.experiment, "runs": runs}
        folder = tempfile.mkdtemp(prefix="privacy-pipelines-")
        Path(folder, "sweep.json").write_text(json.dumps(shared))
        os.environ[VARIABLE] = folder


def _datasets(config: DictConfig, swept: dict[str, list[str]]) -> str:
    """What a sweep's datasets are called together, as its runs call each of them."""
    names = swept.get("dataset") or swept.get("dataset.name") or [config.name]
    return titles(names, [file.strip("'\"") for file in swept.get("dataset.file", ())] or [config.file])


def _swept(overrides: list[str], params: dict[str, Any]) -> dict[str, list[str]]:
    """The values of every swept key; the command line wins over the preset, as it does in Hydra's sweeper."""
    lines = [f"{key}={value}" for key, value in params.items()] + overrides
    found: dict[str, list[str]] = {}
    for override in OverridesParser.create().parse_overrides(lines):
        if override.is_sweep_override():
            found[override.get_key_element()] = list(override.sweep_string_iterator())
        else:
            found.pop(override.get_key_element(), None)
    return found


def count_distinct(swept: dict[str, list[str]], *, default: str) -> int:
    """Counts the runs of a sweep, where a non-private pipeline takes no part in a sweep over privacy.

    Args:
      swept: values of every swept key.
      default: the pipeline where none is swept.
    """
    distinct = set()
    for values in product(*swept.values()):
        job = dict(zip(swept, values, strict=True))
        # An option such as dp_sgd_users begins with the name of its pipeline.
        private = job.get("pipeline", default).startswith(tuple(PRIVATE_UNITS))
        distinct.add(tuple((key, value) for key, value in job.items() if private or not key.startswith("privacy")))
    return len(distinct)


@lru_cache(maxsize=1)
def sweep_store(sweep: Sweep) -> "Store":
    """The sweep's store, opened once a process; leftovers of dead processes are closed then."""
    from pipelines.tracking.orphans import close_orphans
    from pipelines.tracking.store import open_store

    store = open_store(sweep.uri, sweep.experiment)
    close_orphans(store)
    return store


@lru_cache(maxsize=1)
def progress(sweep: Sweep) -> SweepProgress:
    """The sweep's progress as this process shows it; made when its first job starts."""
    return SweepProgress(sweep.runs)


def close_progress(sweep: Sweep) -> None:
    """Ends the bar's line, if this process ran a job."""
    if progress.cache_info().currsize:
        progress(sweep).close()
    progress.cache_clear()
