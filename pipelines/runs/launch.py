"""From the command line to runs, and from their outcome to one line and an exit code.

This module calls Hydra, sets the exit code, and prints one clear line for every mistake. Heavy imports wait until the
configuration is known to be valid.
"""

import os
import signal
import sys
import traceback
import warnings
from types import FrameType
from typing import TYPE_CHECKING

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from tqdm import tqdm

from pipelines.config.audit_settings import MechanismAudit
from pipelines.config.hydra_errors import explain
from pipelines.config.overrides import arranged
from pipelines.config.pipeline_table import in_words, private_pipelines
from pipelines.config.schema import Config, parse
from pipelines.core.errors import StoreError, UserError
from pipelines.core.paths import REPOSITORY, require_places
from pipelines.core.process import available_cores, mute_unread_streams, pause_collector, resume_collector
from pipelines.core.terminal import remark
from pipelines.privacy.rounding import rounded_up
from pipelines.runs.sweep import Outcome, Sweep, close_progress, progress, sweep_store

if TYPE_CHECKING:
    from pipelines.privacy.guarantee import PrivacyGuarantee

CONF = str(REPOSITORY / "conf")
INTERRUPTED = 130
EXPLAINED = (UserError, HydraException, OmegaConfBaseException)
LAST_FRAMES = 3
"""Frames shown of the traceback of an unexpected exception; debug=true shows all of them."""
_failures: list[str] = []


def main() -> None:
    """Runs the command line; exits 1 after a failure and 130 after an interruption."""
    debug = bool(os.environ.get("HYDRA_FULL_ERROR")) or "debug=true" in [item.lower() for item in sys.argv]
    # With this variable Hydra raises an exception instead of printing its own version of it.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGTERM, _interrupt)
    if before is signal.default_int_handler:  # otherwise SIGINT is ignored, or another program handles it
        signal.signal(signal.SIGINT, _interrupt)
    # The joblib launcher replaces a process that has grown. Its warning has two lines and needs no action.
    warnings.filterwarnings("ignore", "A worker stopped while some jobs were given")
    pause_collector()
    _failures.clear()
    remark.cache_clear()
    code = 0
    try:
        require_places()
        sys.argv[1:] = arranged(sys.argv[1:], CONF)
        _hydra_main()
    except KeyboardInterrupt as error:
        mute_unread_streams()
        print(f"interrupted: {_left_by(error)}", file=sys.stderr)
        code = INTERRUPTED
    except Exception as error:  # any kind: a sweep must be ended
        _show_traceback(error, debug=debug)
        _fail(_in_full(error))
    code = max(code, 1 if _failures else 0, _finish_sweep(interrupted=code == INTERRUPTED))
    resume_collector()
    signal.signal(signal.SIGINT, before)
    sys.exit(code)


@hydra.main(version_base="1.3", config_path=CONF, config_name="config")
def _hydra_main(values: DictConfig) -> None:
    try:
        _run_job(values)
    except BrokenPipeError as error:  # the reader of our output closed the pipe
        interruption = KeyboardInterrupt()
        interruption.__notes__ = getattr(error, "__notes__", ["no run was open"])
        raise interruption from error


def _run_job(values: DictConfig) -> None:
    hydra_config = HydraConfig.get()
    multirun = hydra_config.mode == RunMode.MULTIRUN
    sweep = Sweep.current() if multirun else None
    # As written: the configuration resolves or refuses an interpolation in them.
    overrides: list[str] = OmegaConf.to_container(hydra_config.overrides.task)  # type: ignore[assignment]
    try:
        if multirun and sweep is None:
            raise UserError("hydra.callbacks has no open_sweep, so the sweep has no parent run; keep open_sweep")
        config = parse(OmegaConf.to_container(values, resolve=True))  # type: ignore[arg-type]
        if sweep is None:
            _refuse_idle_privacy(config)
        elif not sweep.claim(config):
            return
        else:
            progress(sweep)
        if sweep is not None and sweep.store_is_lost:
            line = "not started: the store is lost"
        else:
            line = _run(config, overrides, sweep, _threads(config, hydra_config))
    except BrokenPipeError:
        raise
    except Exception as error:  # any kind: Hydra would add lines to it, and the sweep's other runs go on
        _show_traceback(error, debug=values.debug)
        if sweep is None:
            return _fail(_in_full(error))
        if isinstance(error, StoreError) and error.lost:
            sweep.lose_store()
        line = f"failed: {_in_full(error)}"
        sweep.record_failure(f"{' '.join(overrides)}: {_in_full(error)}")
    if sweep is not None:
        progress(sweep).finish_run(line, done=sweep.count_done(), elapsed_s=sweep.elapsed_s)
    else:
        print(line)
        if hydra_config.sweeper.params:
            choice = hydra_config.runtime.choices.get("experiment")
            print(f"experiment={choice} is a sweep, and this was one run of it; add -m to run all", file=sys.stderr)


def _run(config: Config, overrides: list[str], sweep: Sweep | None, threads: int) -> str:
    """Runs one configuration and returns its outcome in a line; outside a sweep, also where the run is recorded."""
    from pipelines.runs.execute import execute
    from pipelines.runs.prepare import prepare
    from pipelines.runs.spent import account_for_dead
    from pipelines.tracking.orphans import close_orphans
    from pipelines.tracking.store import open_store, viewer

    pause_collector()
    job = prepare(config, threads)
    for line in filter(None, (*job.remarks, job.plan and job.plan.remark())):
        remark(line)
    if sweep is None:
        store = open_store(config.tracking.uri, config.tracking.experiment or job.dataset.name)
        close_orphans(store)
        for note in account_for_dead(store):
            tqdm.write(f"note: {note}", file=sys.stderr)
    else:
        store = sweep_store(sweep)
    parent_id = None if sweep is None else sweep.parent_id
    position = 0 if sweep is None else 1
    result, run_id = execute(job, store, parent_id=parent_id, overrides=overrides, position=position)
    guarantee = result.guarantee
    spent = "" if guarantee is None else f"  {_spent(guarantee)}"
    audited = "" if result.audit is None else f"  {result.audit.summary()}"
    line = f"{job.name:32s} accuracy {result.evaluation.accuracy:.4f}{spent}{audited}"
    idle = result.evaluation.accuracy <= job.dataset.majority
    if sweep is not None:
        return f"{line}  no better than the most frequent class" if idle else line
    chance = f"\n{_idle(job.dataset.majority)}" if idle else ""
    return f"{line}{chance}\nrun {run_id} in {store.uri} ({viewer(store.uri)})"


def _idle(majority: float) -> str:
    if majority == 1:
        return "The test split has one class only, so this accuracy says nothing; give a test split with every class"
    return (
        f"This is no better than always answering the most frequent class, accuracy {majority:.4f}: the model has "
        "learned nothing useful; check the scale of the inputs, the learning rate and, if the run is private, the noise"
    )


def _spent(guarantee: "PrivacyGuarantee") -> str:
    return f"epsilon {rounded_up(guarantee.epsilon)} at delta {rounded_up(guarantee.executed.delta, 6)}"


def _refuse_idle_privacy(config: Config) -> None:
    """Refuses privacy settings for a pipeline without privacy: its user would believe the run to be private."""
    for field in ("epsilon", "noise_multiplier"):
        value = getattr(config.privacy, field)
        if value is not None and not config.private:
            raise UserError(
                f"privacy.{field}={value:g} has no effect on pipeline={config.pipeline.name}, which is not private; "
                f"drop it, or choose {in_words(private_pipelines())}"
            )
    if isinstance(config.audit, MechanismAudit) and not config.private:
        raise UserError(
            f"audit=mechanism has no effect on pipeline={config.pipeline.name}, which has no mechanism; drop it, "
            f"or choose {in_words(private_pipelines())}"
        )


def _threads(config: Config, hydra_config: HydraConf) -> int:
    """Threads of one job: as configured, else the cores this process may use, shared among parallel jobs."""
    cores = available_cores()
    jobs = hydra_config.launcher.get("n_jobs", 1) if hydra_config.mode == RunMode.MULTIRUN else 1
    return config.threads or max(1, cores // (cores if jobs < 0 else jobs))


def _finish_sweep(*, interrupted: bool) -> int:
    """Ends the sweep, if there is one, and returns the exit code."""
    sweep = Sweep.current()
    if sweep is None:
        return 0
    from pipelines.runs.sweep_end import end_sweep

    close_progress(sweep)
    failures = sweep.failures()
    outcome: Outcome = "interrupted" if interrupted else "failed" if failures or _failures else "finished"
    complete = end_sweep(sweep, outcome)
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    sweep.close()
    return 0 if complete else 1


def _left_by(interruption: KeyboardInterrupt) -> str:
    """Says what an interruption leaves behind."""
    notes = getattr(interruption, "__notes__", [])
    if Sweep.current() is not None:
        notes = ["the sweep is marked KILLED, and so is a run that was open; runs that had finished are kept", *notes]
    return "; ".join(notes or ["no run was open"])


def _show_traceback(error: Exception, *, debug: bool) -> None:
    """Prints the traceback of an error: all of it with debug=true, its last frames if the error is unexpected."""
    if debug:
        traceback.print_exception(error)
    elif not isinstance(error, (*EXPLAINED, OSError)):
        traceback.print_exception(error, limit=-LAST_FRAMES, chain=False)


def _in_full(error: Exception) -> str:
    """Describes an error in one line, with what its run left behind."""
    known = isinstance(error, EXPLAINED)
    line = explain(error, CONF) if known else f"{type(error).__name__}: {' '.join(str(error).split())}"
    return "; ".join([line, *getattr(error, "__notes__", [])])


def _fail(line: str) -> None:
    _failures.append(line)
    print(f"error: {line}", file=sys.stderr)


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is _interrupt:
            signal.signal(number, _wait)
    raise KeyboardInterrupt


def _wait(_signum: int, _frame: FrameType | None) -> None:
    """Ignores a second interruption: the run is being closed and logs what it spent, which would be lost."""
    os.write(2, b"closing the run; kill -9 would lose the record of the epsilon that it spent\n")
