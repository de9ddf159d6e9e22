"""Writes a record into its recipe's README, between two marks that a person sets."""

import re
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from pipelines.privacy.rounding import rounded_down, rounded_up
from pipelines.recipes.drift import Cell, Key
from pipelines.recipes.record import Origin
from pipelines.report.published_results import PublishedPoint

BLOCK = re.compile(r"(?<=<!-- recorded -->\n).*(?=<!-- end of recorded -->)", re.DOTALL)


def write_readme(
    folder: Path,
    cells: dict[Key, Cell],
    origin: Origin,
    published: Sequence[PublishedPoint] = (),
    waterfall: str | None = None,
) -> None:
    """Writes the waterfall, if any, and the record between the README's two marks, if the README has them."""
    path = folder / "README.md"
    if not path.is_file():
        return
    versions = ", ".join(f"{name} {version}" for name, version in origin.versions.items())
    commands = origin.command.splitlines()
    command = f"`{commands[0]}`" if len(commands) == 1 else "\n".join(["```", *commands, "```"])
    block = (
        f"{markdown_table(cells)}\n\n{command}\n\n"
        f"Commit {origin.commit}; {origin.platform}; {versions}. Every run is in "
        "`results.csv`, what made them in `record.json`.\n"
    )
    if waterfall is not None:
        block = f"{waterfall}\n\n{block}"
    if published:
        block += f"\n{published_table(published)}\n"
    path.write_text(BLOCK.sub(lambda _: block, path.read_text(encoding="utf-8")), encoding="utf-8")


def markdown_table(cells: dict[Key, Cell]) -> str:
    """Renders a record."""
    varied = any(cell.run.variant for cell in cells.values())
    lines = []
    for cell in cells.values():
        run, low, high = cell.run, min(cell.accuracies), max(cell.accuracies)
        lines.append(
            [
                run.pipeline,
                *([run.variant or ""] if varied else []),
                run.unit or "",
                "none" if run.epsilon is None else rounded_up(run.epsilon),
                "" if run.noise_multiplier is None else rounded_down(run.noise_multiplier),
                run.steps,
                f"{100 * cell.mean:.2f} %",
                f"{100 * cell.spread:.2f}",
                f"{100 * low:.1f} to {100 * high:.1f} %",
                len(cell.seeds),
            ]
        )
    headers = ["pipeline", "unit", "epsilon", "sigma", "steps", "accuracy", "spread", "lowest to highest", "seeds"]
    if varied:
        headers.insert(1, "variant")
    return tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True)


def published_table(published: Sequence[PublishedPoint]) -> str:
    """Renders published results, with the published epsilon and the one that our accountant computes."""
    lines = [
        [
            f"[{point.label}]({point.url})",
            point.unit,
            f"{100 * point.accuracy:.4g} %",
            rounded_up(point.epsilon, 6),
            _epsilon_here(point),
            rounded_up(point.delta, 6),
            "; ".join(
                f"{stage.sample:,} of {point.population:,}, sigma {stage.noise_multiplier:g}, {stage.steps:,} steps"
                for stage in point.stages
            )
            or "not known",
        ]
        for point in published
    ]
    headers = ["published by others", "unit", "accuracy", "their epsilon", "on our axis", "delta", "parameters"]
    notes: dict[str, list[str]] = {}
    for point in published:
        notes.setdefault(point.note.strip(), []).append(point.label)
    listed = "\n".join(f"- {'; '.join(labels)}: {note}" for note, labels in notes.items())
    return f"{tabulate(lines, headers=headers, tablefmt='github', disable_numparse=True)}\n\n{listed}"


def _epsilon_here(point: PublishedPoint) -> str:
    if point.epsilon_here is None:
        return "not known"
    alone = "" if point.epsilon_of_training is None else f" (training alone {rounded_up(point.epsilon_of_training, 3)})"
    return f"{rounded_up(point.epsilon_here, 3)}{alone}"
