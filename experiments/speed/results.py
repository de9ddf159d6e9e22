"""Measurements on disk, and their evaluation: medians, spreads, ratios, targets met or missed."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from experiments.speed.runner import Measurement
from experiments.speed.subject import SECTIONS, Chapter, Section, Target

COLUMNS = ("section", "subject", "repeat", "metric", "value")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The origin of a section's measurements.

    Attributes:
      command, date, commit: of the benchmark's run.
      machine: CPU, cores, memory, system.
      versions: by environment, then by package.
      repeats: asked for.
      quick: whether in the short form.
      missing: environments that were not built.
    """

    command: str
    date: str
    commit: str
    machine: dict[str, str]
    versions: dict[str, dict[str, str]]
    repeats: int
    quick: bool
    missing: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Record:
    """A measured section."""

    origin: Origin
    measurements: tuple[Measurement, ...]

    def values(self, subject: str, metric: str) -> list[float]:
        """A subject's values of a metric, in the order of repeats; empty if there are none."""
        return [m.metrics[metric] for m in self.measurements if m.subject == subject and metric in m.metrics]

    def failure(self, subject: str) -> str | None:
        """The reason why a subject failed, if it failed."""
        return next((m.failure for m in self.measurements if m.subject == subject and m.failure), None)

    def facts(self, subject: str) -> dict[str, str]:
        """Facts that a subject's engine reported."""
        return next((m.facts for m in self.measurements if m.subject == subject and m.facts), {})


Records = Mapping[Section, Record]


@dataclass(frozen=True)
class Spread:
    """A median or a ratio of medians, with the least and the greatest of the repeats."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of at least one value."""
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome of a target.

    Attributes:
      target: the claim.
      value: None if a subject was not measured.
      met: None without a value or a bound.
      versus: the reference that counted, if there are several.
    """

    target: Target
    value: Spread | None
    met: bool | None
    versus: str | None


def judge(target: Target, record: Record) -> Verdict:
    """Computes a target's value and whether its bound holds.

    The value is the ratio of medians. Its spread is that of the ratios of paired repeats, if there are several.
    """
    subject = _greatest(target.subject, target.metric, record)
    reference = _greatest(target.reference, target.metric, record) if target.reference else None
    if subject is None or (target.reference and reference is None):
        return Verdict(target=target, value=None, met=None, versus=None)
    ours = record.values(subject, target.metric)
    value = Spread.of(ours)
    if reference is not None:
        theirs = record.values(reference, target.metric)
        ratios = [a / b for a, b in zip(ours, theirs, strict=False)]
        middle = median(ours) / median(theirs)
        value = Spread(middle, min(ratios), max(ratios)) if len(ratios) > 1 else Spread.of([middle])
    met = None
    if target.bound is not None:
        met = value.middle >= target.bound if target.at_least else value.middle <= target.bound
    chosen = [subject] * (len(target.subject) > 1) + [str(reference)] * (len(target.reference) > 1)
    return Verdict(target=target, value=value, met=met, versus=", ".join(chosen) or None)


def verdicts(chapter: Chapter, record: Record) -> list[Verdict]:
    """Judges all targets of a section."""
    return [judge(target, record) for target in chapter.targets]


def _greatest(names: tuple[str, ...], metric: str, record: Record) -> str | None:
    measured = [name for name in names if record.values(name, metric)]
    return max(measured, key=lambda name: median(record.values(name, metric)), default=None)


def write_json(records: Records, path: Path) -> None:
    """Writes all sections with their origins; `read_json` reads them back."""
    sections = {section: asdict(records[section]) for section in SECTIONS if section in records}
    path.write_text(json.dumps(sections, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[Section, Record]:
    """Reads the file of `write_json`; empty if there is no such file."""
    if not path.is_file():
        return {}
    sections: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {section: _record(sections[section]) for section in SECTIONS if section in sections}


def _record(values: dict[str, Any]) -> Record:
    origin = {**values["origin"], "missing": tuple(values["origin"]["missing"])}
    return Record(origin=Origin(**origin), measurements=tuple(Measurement(**item) for item in values["measurements"]))


def write_csv(records: Records, path: Path) -> None:
    """Writes one row for each value, floats in full."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for section in SECTIONS:
            for m in records[section].measurements if section in records else ():
                writer.writerows((section, m.subject, m.repeat, metric, value) for metric, value in m.metrics.items())
