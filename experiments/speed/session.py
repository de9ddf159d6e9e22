"""One run of the benchmark: from the chosen sections to tables, files and the MLflow run."""

import argparse
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from experiments.speed import environments
from experiments.speed.chapters import chapter
from experiments.speed.figure import speed_figure
from experiments.speed.probes import problem
from experiments.speed.progress import Progress
from experiments.speed.record import FOLDER, RESULTS, markdown, write_readme, write_results
from experiments.speed.results import Origin, Record, read_json, verdicts
from experiments.speed.runner import Measurement, Setting, take_turns
from experiments.speed.subject import SECTIONS, Chapter, Section, Subject
from experiments.speed.table import section_table, targets_table
from pipelines.config.data_settings import DownloadedConfig
from pipelines.core.errors import UserError
from pipelines.core.provenance import source_commit
from pipelines.data.load import load_dataset
from pipelines.tracking.listeners import open_run
from pipelines.tracking.orphans import close_orphans
from pipelines.tracking.run_log import COMMIT, NOTE, RunLog, RunStart
from pipelines.tracking.store import open_store

EXPERIMENT = "speed"
ABOUT = "How fast the pipelines are beside their peers. Metrics are `section/subject/metric`, their step the repeat."
Selection = list[tuple[Chapter, Sequence[Subject]]]


def run(chosen: argparse.Namespace) -> None:
    """Measures the chosen subjects, and writes and logs the results.

    Args:
      chosen: the parsed command line.

    Raises:
      UserError: unknown subjects, no data, nothing measured, or a store or folder that cannot be written.
    """
    plan, missing = plan_of(chosen.sections or SECTIONS, chosen.only)
    cores = environments.use_cores(chosen.cores)
    for line in filter(None, (*map(environments.missing_line, missing), environments.busy_line(cores))):
        print(line, flush=True)
    repeats = 1 if chosen.quick else chosen.repeats
    origin = _origin(chosen, plan, repeats, missing)
    store = open_store(chosen.uri, EXPERIMENT)
    close_orphans(store)
    sections = [built.section for built, _ in plan]
    params = {"sections": " ".join(sections), "repeats": repeats, "quick": chosen.quick, **_flat(origin)}
    tags = {"kind": "speed", "mlflow.source.name": "experiments.speed", COMMIT: origin.commit, NOTE: ABOUT}
    with (
        tempfile.TemporaryDirectory(prefix="speed-") as scratch,
        open_run(store, RunStart(name=f"speed {' '.join(sections)}", tags=tags, params=params)) as log,
    ):
        dataset = load_dataset(DownloadedConfig(name="mnist", folder=chosen.data))
        setting = Setting(
            scratch=Path(scratch), data=problem.archive(Path(scratch), dataset), folder=chosen.data or "null",
            threads=cores, quick=chosen.quick,
        )  # fmt: skip
        records = _measure(plan, repeats, setting, origin, log)
        _publish(records, log, chosen.output)
    if chosen.record:
        merged = {**read_json(FOLDER / RESULTS), **records}
        write_results(merged, FOLDER)
        write_readme(merged)
        print(f"recorded in {FOLDER}")


def plan_of(sections: Sequence[Section], only: Sequence[str]) -> tuple[Selection, tuple[str, ...]]:
    """Chooses subjects, and names the missing environments.

    Args:
      sections: in any order; they run in the order of the benchmark.
      only: names of subjects; empty takes all.

    Raises:
      UserError: a name that no chosen section has.
    """
    built = [chapter(section) for section in SECTIONS if section in sections]
    known = [subject.name for item in built for subject in item.subjects]
    if unknown := [name for name in only if name not in known]:
        raise UserError(f"--only {unknown[0]}: no such subject in {', '.join(sections)}; see --list")
    chosen = [(item, [s for s in item.subjects if not only or s.name in only]) for item in built]
    needed = {subject.environment for _, subjects in chosen for subject in subjects}
    missing = tuple(sorted(name for name in needed if not environments.available(name)))
    plan: Selection = [(item, [s for s in subjects if s.environment not in missing]) for item, subjects in chosen]
    plan = [(item, subjects) for item, subjects in plan if subjects]
    if not plan:
        raise UserError("; ".join(environments.missing_line(name) for name in missing))
    return plan, missing


def _measure(plan: Selection, repeats: int, setting: Setting, origin: Origin, log: RunLog) -> dict[Section, Record]:
    progress, records = Progress(plan, repeats), {}
    for built, subjects in plan:

        def on_measurement(measurement: Measurement, section: Section = built.section) -> None:
            progress.finish(measurement)
            prefix = f"{section}/{measurement.subject}"
            log.on_metrics(measurement.repeat, {f"{prefix}/{name}": v for name, v in measurement.metrics.items()})

        found = take_turns(subjects, repeats, setting, on_measurement)
        records[built.section] = Record(origin=origin, measurements=tuple(found))
        print(f"\n{section_table(built, records[built.section], markdown=False)}\n", flush=True)
    return records


def _publish(records: dict[Section, Record], log: RunLog, folder: Path) -> None:
    """Prints the targets, writes the files and logs both."""
    print(f"{targets_table(records, markdown=False)}\n")
    for section, record in records.items():
        for verdict in verdicts(chapter(section), record):
            if verdict.value is not None:
                log.on_metrics(0, {f"target/{section}/{verdict.target.key}": verdict.value.middle})
    paths = write_results(records, folder)
    for path in paths:
        print(path)
        if path.suffix != ".png":
            log.on_artifact(path.name, path.read_text(encoding="utf-8"))
    log.on_artifact("speed.png", speed_figure(records))
    log.on_artifact("speed.md", markdown(records))


def command_of(chosen: argparse.Namespace) -> str:
    """The parts of the command line that affect the measurements, without paths of this machine."""
    words = [
        "python -m experiments.speed",
        *chosen.sections,
        "--quick" if chosen.quick else f"--repeats {chosen.repeats}",
    ]
    words += [f"--cores {chosen.cores}", *(["--only", *chosen.only] if chosen.only else [])]
    return " ".join([*words, *(["--record"] if chosen.record else [])])


def _origin(chosen: argparse.Namespace, plan: Selection, repeats: int, missing: tuple[str, ...]) -> Origin:
    used = sorted({subject.environment for _, subjects in plan for subject in subjects} | {"project"}, reverse=True)
    return Origin(
        command=command_of(chosen),
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        commit=source_commit(),
        machine=environments.machine(),
        versions={environment: environments.versions(environment) for environment in used},
        repeats=repeats,
        quick=chosen.quick,
        missing=missing,
    )


def _flat(origin: Origin) -> dict[str, str]:
    """Machine and versions as parameters of the MLflow run."""
    packages = {
        f"{environment}.{name}": version
        for environment, found in origin.versions.items()
        for name, version in found.items()
    }
    return {f"machine.{name}": value for name, value in origin.machine.items()} | packages
