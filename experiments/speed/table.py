"""Results as text: for a terminal, and in Markdown for the README."""

from collections.abc import Sequence

from tabulate import tabulate

from experiments.speed.chapters import chapter
from experiments.speed.environments import missing_line
from experiments.speed.results import Origin, Record, Records, Spread, Verdict, verdicts
from experiments.speed.subject import SECTIONS, Chapter

FORMATS = {False: "simple", True: "github"}


def number(value: float) -> str:
    """A number with three significant digits and separated thousands; small shares keep four decimals."""
    if abs(value) >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 or value == 0 else f"{value:.1e}"


def spread_text(spread: Spread) -> str:
    """The median, followed by the range if there is one."""
    if spread.low == spread.middle == spread.high:
        return number(spread.middle)
    return f"{number(spread.middle)} ({number(spread.low)} to {number(spread.high)})"


def targets_table(records: Records, *, markdown: bool) -> str:
    """Claims with value, bound and verdict, section by section; on a terminal only those with a measured subject."""
    rows = []
    for section in SECTIONS:
        if section not in records:
            continue
        measured = {m.subject for m in records[section].measurements}
        for verdict in verdicts(chapter(section), records[section]):
            if markdown or measured & set(verdict.target.subject):
                rows.append(_verdict_row(verdict))
    return _table(["", "measured", "target", "met"], rows, markdown)


def section_table(built: Chapter, record: Record, *, markdown: bool) -> str:
    """Every subject of a section with the medians of its metrics, followed by failures and missing environments."""
    columns = {
        metric: heading
        for metric, heading in built.columns.items()
        if any(record.values(subject.name, metric) for subject in built.subjects)
    }
    rows, remarks = [], []
    for subject in built.subjects:
        found = [record.values(subject.name, metric) for metric in columns]
        if any(found):
            mode = record.facts(subject.name).get("grad_sample")
            label = subject.label + (f" ({mode})" if mode and mode not in subject.label else "")
            rows.append([label, *("" if not values else spread_text(Spread.of(values)) for values in found)])
        if failure := record.failure(subject.name):
            remarks.append(f"{subject.label} failed: {failure}")
    remarks += [missing_line(environment) for environment in record.origin.missing]
    return "\n\n".join([_table(["", *columns.values()], rows, markdown), *remarks])


def origin_text(origin: Origin) -> str:
    """The origin of the measurements, in Markdown."""
    machine = "; ".join(f"{name} {value}" for name, value in origin.machine.items())
    lines = [f"`{origin.command}`, {origin.date}, commit {origin.commit}; {machine}."]
    for environment, found in origin.versions.items():
        lines.append(f"{environment}: {', '.join(f'{name} {version}' for name, version in found.items())}.")
    form = "Short form, for a look only. " if origin.quick else ""
    return f"{form}Medians of at most {origin.repeats} repeats, least to greatest in brackets.\n" + "\n".join(lines)


def _verdict_row(verdict: Verdict) -> list[str]:
    target, value = verdict.target, verdict.value
    claim = target.claim + (f" ({verdict.versus})" if verdict.versus else "")
    if value is None:
        return [claim, "not measured", target.bound_text, ""]
    met = "" if verdict.met is None else "yes" if verdict.met else "no"
    return [claim, f"{spread_text(value)} {target.unit}".strip(), target.bound_text.strip(), met]


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool) -> str:
    aligned = ("left", *["right"] * (len(headers) - 1))
    if not rows:
        return "nothing was measured"
    return tabulate(rows, headers=headers, tablefmt=FORMATS[markdown], colalign=aligned, disable_numparse=True)
