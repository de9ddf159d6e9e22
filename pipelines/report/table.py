"""The frontier as CSV, and as text for a terminal, at most 100 columns wide if the commands allow it."""

import csv
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from textwrap import fill

from tabulate import tabulate

from pipelines.privacy.mechanisms.base import NeighboringRelation, PrivacyUnit
from pipelines.privacy.rounding import rounded_down, rounded_up
from pipelines.privacy.statement import bound_in_words
from pipelines.report.command import commands, folded
from pipelines.report.panels import Frontier, Panel
from pipelines.report.points import Point
from pipelines.report.published_rows import published_key, published_mark
from pipelines.report.untuned import untuned_ceilings

WIDTH = 100
LABEL_WIDTH = 43
MOST_ROWS = 10
"""Most of our own points in a panel, and most lines of commands. A terminal shows the best; the CSV has all."""
AUDIT = "audit ≥"
"""The epsilon that an audit proved, if any."""
HEADERS = ("", "epsilon", AUDIT, "sigma", "accuracy", "seeds")
COLUMNS = (
    "pipeline", "dataset", "model", "variant", "unit", "population", "epsilon", "delta", "relation", "accountant",
    "target_epsilon", "noise_multiplier", "simulated", "epsilon_lower_bound", "accuracy", "accuracy_interval",
    "seed_count", "seeds", "majority", "data_sha256", "run_ids", "overrides",
)  # fmt: skip


def frontier_table(frontier: Frontier) -> str:
    """Renders each panel, what all points share, and the commands that repeat them.

    A panel has the sentence of its guarantee and the private points by epsilon, with the bounds of audits if any ran.
    Then follow the points without privacy, the majority class, and published points.
    """
    audited = any(point.privacy is not None and point.privacy.audited is not None for point in frontier.points)
    columns = [column for column in HEADERS if audited or column != AUDIT]
    blocks = []
    for panel in frontier.panels:
        rows = [dict(zip(HEADERS, row, strict=True)) for row in (*_rows(panel), *_published_rows(panel))]
        body = tabulate(
            [[row[column] for column in columns] for row in rows],
            headers=columns,
            tablefmt="simple",
            colalign=("left", *["right"] * (len(columns) - 1)),
            disable_numparse=True,
        )
        heading = [f"{panel.title}: {panel.promise}", *(fill(bound, WIDTH) for bound in _bounds(panel))]
        blocks.append("\n".join([*heading, body]))
    notes = [
        _folded(frontier.caption), fill(untuned_ceilings(frontier), WIDTH), fill(published_key(frontier), WIDTH),
    ]  # fmt: skip
    return "\n\n".join(filter(None, [*blocks, *notes, _commands(frontier)]))


def accuracy_text(point: Point) -> str:
    """Mean and interval in percent, with a second decimal where the interval is below half a point."""
    if point.interval is None:
        return f"{100 * point.accuracy:.1f} %"
    decimals = 2 if point.interval < 0.005 else 1
    return f"{100 * point.accuracy:.{decimals}f} ± {100 * point.interval:.{decimals}f} %"


def write_csv(frontier: Frontier, path: Path) -> None:
    """Writes one row for each point, floats in full; a missing value is empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(_record(point) for point in frontier.points)


def _bounds(panel: Panel) -> list[str]:
    """The meaning of an epsilon of this panel, one sentence for each relation in it."""
    kinds = {(p.privacy.unit, p.privacy.relation) for line in panel.lines for p in line.points if p.privacy is not None}
    return [bound_in_words(PrivacyUnit(unit), NeighboringRelation(relation)) for unit, relation in sorted(kinds)]


def _rows(panel: Panel) -> list[list[str]]:
    """Our own points: by line and epsilon if they are few, else the best by accuracy."""
    rows, accuracies = [], []
    for line in panel.lines:
        for point in line.points:
            assert point.privacy is not None, "a line holds private points only"
            sigma, audited = point.privacy.noise_multiplier, point.privacy.audited
            accuracies.append(point.accuracy)
            rows.append(
                [
                    _wrapped(line.label),
                    rounded_up(point.privacy.epsilon),
                    "" if audited is None else rounded_down(audited),
                    "" if sigma is None else rounded_down(sigma),
                    accuracy_text(point),
                    str(len(point.seeds)),
                ]
            )
    for ceiling in panel.ceilings:
        label = _wrapped(f"{ceiling.label} (no privacy)")
        accuracies.append(ceiling.point.accuracy)
        rows.append([label, "none", "", "", accuracy_text(ceiling.point), str(len(ceiling.point.seeds))])
    if len(rows) > MOST_ROWS:
        best = sorted(range(len(rows)), key=lambda place: -accuracies[place])[:MOST_ROWS]
        hidden = f"({len(rows) - MOST_ROWS} with less accuracy: frontier.csv)"
        rows = [*(rows[place] for place in best), [hidden, "", "", "", "", ""]]
    for dataset, share in panel.floors:
        label = "majority class" if len(panel.floors) == 1 else f"majority class, {dataset}"
        rows.append([label, "", "", "", f"{100 * share:.1f} %", ""])
    return rows


def _published_rows(panel: Panel) -> list[list[str]]:
    return [
        [
            _wrapped(f"{published_mark(point)}{number} {point.label}"),
            rounded_up(point.epsilon_here or point.epsilon),
            "",
            rounded_down(point.stages[0].noise_multiplier) if point.stages else "",
            f"{100 * point.accuracy:.1f} %",
            "theirs",
        ]
        for number, point in panel.published
    ]


def _commands(frontier: Frontier) -> str:
    """One command for each line of the figure where one is enough; with many lines, the commands of the best."""
    lines: list[Sequence[Point]] = [line.points for panel in frontier.panels for line in panel.lines]
    groups = [*lines, *([point] for point in frontier.points if point.privacy is None)]
    if len(groups) > MOST_ROWS:
        groups.sort(key=lambda points: -max(point.accuracy for point in points))
    found = [command for points in groups for command in commands(points)]
    if not found:
        return ""
    lines_of = [folded(command, WIDTH - 2) for command in found]
    total = list(accumulate(map(len, lines_of)))
    shown = max(1, sum(count <= MOST_ROWS for count in total))
    rest = [f"({len(found) - shown} more: frontier.csv, overrides)"] if shown < len(found) else []
    return "\n".join(["Again:", *(f"  {line}" for each in [*lines_of[:shown], rest] for line in each)])


def _wrapped(label: str) -> str:
    return fill(label, LABEL_WIDTH, subsequent_indent="  ")


def _folded(caption: str) -> str:
    lines = [""]
    for part in caption.split(" · "):
        joined = f"{lines[-1]} · {part}" if lines[-1] else part
        if len(joined) <= WIDTH:
            lines[-1] = joined
        else:
            lines.append(part)
    return "\n".join(line if len(line) <= WIDTH else fill(line, WIDTH) for line in lines if line)


def _record(point: Point) -> dict[str, object]:
    record: dict[str, object] = {
        "pipeline": point.pipeline,
        "dataset": point.dataset,
        "model": point.model,
        "variant": point.variant,
        "accuracy": point.accuracy,
        "accuracy_interval": point.interval,
        "seed_count": len(point.seeds),
        "seeds": " ".join(point.seeds),
        "majority": point.majority,
        "data_sha256": point.data_sha256,
        "run_ids": " ".join(point.run_ids),
        "overrides": point.overrides,
    }
    if point.privacy is not None:
        record |= {
            "unit": point.privacy.unit,
            "population": point.privacy.population,
            "epsilon": point.privacy.epsilon,
            "delta": point.privacy.delta,
            "relation": point.privacy.relation,
            "accountant": point.privacy.accountant,
            "target_epsilon": point.privacy.target,
            "noise_multiplier": point.privacy.noise_multiplier,
            "simulated": point.privacy.simulated,
            "epsilon_lower_bound": point.privacy.audited,
        }
    return record
