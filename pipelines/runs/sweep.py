"""A sweep: one parent run with a child for every distinct configuration, and a frontier at the end.

Hydra's launchers may run the jobs in this process or in others, so the jobs share a folder. An environment variable
names it, which worker processes inherit.
"""

import json
import os
import shutil
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from pipelines.config.data_settings import titles
from pipelines.config.pipeline_table import PIPELINES
from pipelines.config.schema import Config
from pipelines.core.errors import StoreError, UserError
from pipelines.core.paths import scratch, temporary_folder
from pipelines.runs.progress import SweepProgress

if TYPE_CHECKING:
    from pipelines.tracking.store import Store

Outcome = Literal["finished", "failed", "interrupted"]
VARIABLE = "PIPELINES_SWEEP"
_unkept_failures: list[str] = []
OmegaConf.register_new_resolver("scratch", scratch, replace=True)  # for conf/config.yaml, in every process of a sweep


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The facts about a sweep that every job knows.

    Attributes:
      folder: shared by the jobs' processes.
      parent_id: id of the parent run.
      uri, experiment: where the parent run is.
      runs: number of distinct configurations.
      began: start, in seconds since 1970.
    """

    folder: Path
    parent_id: str
    uri: str
    experiment: str
    runs: int
    began: float

    @classmethod
    def current(cls) -> "Sweep | None":
        """The sweep that this process belongs to; it is read from no file, because temporary folders can vanish."""
        shared = os.environ.get(VARIABLE)
        if shared is None:
            return None
        values = json.loads(shared)
        return cls(**values | {"folder": Path(values["folder"])})

    def announce(self) -> None:
        """Makes this the sweep of this process and of those that it starts."""
        os.environ[VARIABLE] = json.dumps(asdict(self) | {"folder": str(self.folder)})

    def claim(self, config: Config) -> bool:
        """Claims a configuration for this job; returns False if another job of the sweep has it already.

        A sweep of epsilon over all pipelines gives a pipeline without privacy the same run several times.
        """
        try:
            self._path(config.fingerprint).touch(exist_ok=False)
        except FileExistsError:
            return False
        except OSError as error:
            raise UserError(
                f"the sweep's folder {self.folder} cannot be used any more ({error.strerror}), so no further run can "
                "start; do not touch it during a sweep, or set TMPDIR to a folder that is not cleaned up"
            ) from None
        return True

    def count_done(self) -> int:
        """Counts a run that has ended, and returns the count over all processes; every run gets another number."""
        try:
            with self._path("done").open("ab", buffering=0) as file:
                file.write(b".")
                return file.tell()
        except OSError:  # the count is for display only
            return self.runs

    @property
    def elapsed_s(self) -> float:
        """Seconds since the sweep began."""
        return time.time() - self.began

    def record_failure(self, line: str) -> None:
        """Keeps a failed job's reason for the end of the sweep: in the folder or, if that fails, in this process."""
        try:
            with self._path("failures").open("a") as file:
                file.write(f"{line}\n")
        except OSError:
            _unkept_failures.append(line)

    def failures(self) -> list[str]:
        """The reasons of all failed jobs so far."""
        path = self._path("failures")
        return [*(path.read_text().splitlines() if path.exists() else []), *_unkept_failures]

    def lose_store(self) -> None:
        """Tells all jobs that the store is gone, so that they do not wait for it again."""
        with suppress(OSError):
            self._path("store-is-lost").touch()

    @property
    def store_is_lost(self) -> bool:
        """Whether a job has found that the store is gone."""
        return self._path("store-is-lost").exists()

    def close(self) -> None:
        """Forgets the sweep."""
        os.environ.pop(VARIABLE, None)
        _unkept_failures.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self.folder / name


class OpenSweep(Callback):
    """Hydra calls this before the first job of a multirun."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Opens the parent run; ends the process if that fails, since Hydra only warns of a callback's exception."""
        try:
            _open(config)
        except Exception as error:  # any kind: without a parent run no job may train
            if config.get("debug"):
                traceback.print_exc()
            reason = str(error) if isinstance(error, UserError) else " ".join(str(error).split()) or repr(error)
            sys.exit(f"error: {reason}")


def _open(config: DictConfig) -> None:
    from pipelines.runs.spent import account_for_dead
    from pipelines.tracking.parent_run import start_sweep
    from pipelines.tracking.store import open_store

    tracking, hydra = config.tracking, config.hydra
    overrides = list(hydra.overrides.task)
    swept = _swept(overrides, dict(hydra.sweeper.params or {}))
    datasets = _datasets(config.dataset, swept)
    runs = count_distinct(swept, default=config.pipeline.name)
    if not runs:
        empty = next(key for key, values in swept.items() if not values)
        raise UserError(f"{empty} has no values in this sweep; give a list, or a glob that matches an option")
    store = open_store(tracking.uri, tracking.experiment or datasets)
    for line in account_for_dead(store):
        print(f"note: {line}", file=sys.stderr)
    folder = Path(temporary_folder("privacy-pipelines-"))
    try:
        name = hydra.runtime.choices.get("experiment") or "sweep"
        parent_id = start_sweep(
            store,
            name=f"{name} on {datasets} ({runs} runs)",
            note=f"A sweep over {', '.join(swept) or 'nothing'}. Its children are runs; it holds the frontier.",
            tags={"overrides": " ".join(overrides)},
        )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    Sweep(
        folder=folder, parent_id=parent_id, uri=store.uri, experiment=store.experiment, runs=runs, began=time.time()
    ).announce()


def _datasets(config: DictConfig, swept: dict[str, list[str]]) -> str:
    """Returns the joint name of a sweep's datasets, made of the names that its runs use."""
    names = swept.get("dataset") or swept.get("dataset.name") or [config.name]
    return titles(names, [file.strip("'\"") for file in swept.get("dataset.file", ())] or [config.get("file")])


def _swept(overrides: list[str], params: dict[str, Any]) -> dict[str, list[str]]:
    """The values of every swept key; the command line wins over the preset, as it does in Hydra's sweeper.

    Raises:
      UserError: a sweep without a list of values, such as interval().
    """
    lines = [f"{key}={value}" for key, value in params.items()] + overrides
    found: dict[str, list[str]] = {}
    # The loader knows the options of each group, and a glob stands for some of them.
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    for override in parser.parse_overrides(lines):
        key = override.get_key_element()
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise UserError(
                f"{override.input_line}: a sweep needs values; give a list (a,b,c), choice(), range() or glob()"
            )
        if override.is_sweep_override():
            found[key] = list(override.sweep_string_iterator())
        else:
            found.pop(key, None)
    return found


def count_distinct(swept: dict[str, list[str]], *, default: str) -> int:
    """Counts the distinct runs of a sweep: to a pipeline without privacy, all privacy settings are the same.

    Args:
      swept: values of every swept key.
      default: the pipeline if none is swept.
    """
    distinct = set()
    for values in product(*swept.values()):
        job = dict(zip(swept, values, strict=True))
        row = PIPELINES.get(job.get("pipeline", default))  # None for an option that the user added
        private = row is None or row.unit is not None
        distinct.add(tuple((key, value) for key, value in job.items() if private or not key.startswith("privacy")))
    return len(distinct)


@lru_cache(maxsize=1)
def sweep_store(sweep: Sweep) -> "Store":
    """Returns the sweep's store. Each process opens it once, and then closes the runs of dead processes."""
    from pipelines.tracking.orphans import close_orphans
    from pipelines.tracking.store import open_store

    try:
        store = open_store(sweep.uri, sweep.experiment)
        close_orphans(store)
    except StoreError as error:
        error.lost = True
        raise
    return store


@lru_cache(maxsize=1)
def progress(sweep: Sweep) -> SweepProgress:
    """Returns this process's progress bar of the sweep; the process's first job makes it."""
    return SweepProgress(sweep.runs)


def close_progress(sweep: Sweep) -> None:
    """Ends the bar's line, if this process ran a job."""
    if progress.cache_info().currsize:
        progress(sweep).close()
    progress.cache_clear()
