"""The product's own checks, on problems that take a second or two. Each passes, or raises what a user would see."""

from collections.abc import Callable
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from pipelines.auditing.contributions import OwnModelRuns
from pipelines.auditing.finding import AuditError
from pipelines.auditing.mechanism import judge, require_auditable
from pipelines.auditing.observation import Observation, fresh_seeds
from pipelines.auditing.own_model import OwnModel
from pipelines.auditing.probe import Probe
from pipelines.config.schema import Config, parse
from pipelines.core.paths import REPOSITORY
from pipelines.engines.federated import fast, stock
from pipelines.privacy.accounting import epsilon as accounting
from pipelines.privacy.accounting import group
from pipelines.runs.execute import execute
from pipelines.runs.prepare import prepare
from pipelines.tracking.read import RunRow, read_json, read_rows
from pipelines.tracking.store import open_store

OBSERVATIONS = 1000
THREADS = 2
CONFIDENCE = 1 - 1e-6
"""So that the suite does not fail now and then: what the checks find of a plan has this level anyway."""
Check = Callable[[Path, tuple[str, ...]], None]


def configured(overrides: tuple[str, ...]) -> Config:
    """The product's configuration on digits."""
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        values = compose("config", [*overrides, "privacy.delta=1e-4"])
    return parse(OmegaConf.to_container(values, resolve=True))  # type: ignore[arg-type]


def forget() -> None:
    """Lets graphs and epsilons be made anew."""
    for cached in (
        fast.build_process,
        stock.build_process,
        accounting.accountant_results,
        accounting.renyi,
        group.group_epsilon,
    ):
        cached.cache_clear()


def mechanism_audit(folder: Path, overrides: tuple[str, ...]) -> None:
    """`audit=mechanism`, with fewer observations."""
    job = prepare(configured(overrides), THREADS)
    plan = require_auditable(job.plan)
    own = OwnModel(config=job.config, plan=plan, spec=job.spec, threads=THREADS)
    runs = OwnModelRuns(own, fresh_seeds())
    for faults in (
        runs.still_faults,
        runs.twin_faults,
        runs.crowd_faults,
    ):  # what comes after the first one would only take time
        if found := faults():
            raise AuditError(f"audit=mechanism REFUTES THIS RUN: on the run's model, {'; '.join(found)}")
    seen = Observation.of(job.config, Probe.of(plan, OBSERVATIONS), THREADS)
    judge(seen, plan, runs, claim=plan.epsilon(), confidence=CONFIDENCE).require()


def run(folder: Path, overrides: tuple[str, ...]) -> None:
    """A whole run: validators, sampler test, conformity of plan and engine."""
    uri = f"sqlite:///{folder / 'runs.db'}"
    job = prepare(configured((*overrides, "tracking.log_model=false", "evaluations=1")), THREADS)
    execute(job, open_store(uri, "mutants"), parent_id=None, overrides=[], position=0)


def logged(folder: Path) -> list[tuple[RunRow, object]]:
    """What `run` left in its store: runs, and the guarantee of each."""
    if not (folder / "runs.db").exists():
        return []
    store = open_store(f"sqlite:///{folder / 'runs.db'}", "mutants")
    return [(row, read_json(store, row.run_id, "privacy.json")) for row in read_rows(store)]
