"""The waterfall figure: the stages of training, and the accuracy that each step costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from pipelines.core.errors import UserError
from pipelines.privacy.rounding import rounded_up
from pipelines.recipes.drift import Cell
from pipelines.recipes.recipe import Stage
from pipelines.recipes.stages import Waterfall, change_text, epsilon_text, waterfall_table
from pipelines.report.drawing import save
from pipelines.report.panels import RELATIONS
from pipelines.report.points import Point
from pipelines.report.style import FLOOR, INK, MORE, Span, colour_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FILE = "waterfall.png"
COLUMN_INCHES, HEIGHT_INCHES = 0.95, 5.2
CAPTION_CHARACTERS = 14  # a column
BAR = 0.72
"""Width of a bar in columns."""
FALL, RISE = "#999999", MORE[0]


@dataclass(frozen=True, kw_only=True)
class WaterfallFiles:
    """The written file, and the table for terminal and README."""

    png: Path
    table: str


def write_waterfall(waterfalls: Sequence[Waterfall], points: Sequence[Point], folder: Path) -> WaterfallFiles:
    """Writes waterfall.png to a folder, which is created if it is missing.

    Args:
      waterfalls: one for each panel.
      points: of the same runs; they name models and datasets.
      folder: where the file goes.

    Raises:
      UserError: the folder is not writable.
    """
    files = WaterfallFiles(png=folder / FILE, table=waterfall_table(waterfalls))
    subject = " · ".join(", ".join(sorted(names)) for names in ({p.dataset for p in points}, {p.model for p in points}))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save(waterfall_figure(waterfalls, subject), files.png)
    except OSError as error:
        raise UserError(f"waterfall folder {folder} is not writable ({error.strerror}); choose another") from None
    return files


def waterfall_figure(waterfalls: Sequence[Waterfall], subject: str) -> Figure:
    """Draws the panels side by side, with a shared accuracy axis.

    Args:
      waterfalls: one for each panel.
      subject: models and datasets, for the caption.
    """
    columns = sum(2 * len(waterfall.stages) - 1 for waterfall in waterfalls)
    figure = Figure(figsize=(COLUMN_INCHES * columns, HEIGHT_INCHES), dpi=150, layout="constrained")
    span = _span(waterfalls)
    widths = [2 * len(waterfall.stages) - 1 for waterfall in waterfalls]
    panels = figure.subplots(1, len(waterfalls), squeeze=False, width_ratios=widths)[0]
    for axes, waterfall in zip(panels, waterfalls, strict=True):
        _dress(axes, waterfall, span)
        _draw_stages(axes, waterfall, span)
        _draw_steps(axes, waterfall)
    figure.suptitle("Where the accuracy goes", x=0.01, ha="left", fontsize=15, fontweight="bold", color=INK)
    caption = fill(_caption(waterfalls, subject, span), CAPTION_CHARACTERS * columns)
    figure.supxlabel(caption, x=0.01, ha="left", fontsize=9, color=FLOOR)
    return figure


def _span(waterfalls: Sequence[Waterfall]) -> Span:
    """Range of the accuracy axis, with room below the lowest step and above the highest bar for their numbers."""
    ends = [
        mean + sign * (step.interval or 0.0)
        for waterfall in waterfalls
        for cell, step in zip(waterfall.cells[1:], waterfall.steps, strict=True)
        for mean, sign in ((cell.mean, -1), (cell.mean, 1))
    ]
    means = [cell.mean for waterfall in waterfalls for cell in waterfall.cells]
    low, high = min(*ends, *means), max(*ends, *means)
    spread = max(high - low, 0.005)
    return max(0.0, low - 0.3 * spread), high + 0.12 * spread


def _dress(axes: "Axes", waterfall: Waterfall, span: Span) -> None:
    """Title, scales, names of the stages and grid."""
    axes.set_title(waterfall.title, loc="left", fontsize=12, fontweight="bold", color=INK)
    axes.set_xlim(-0.6, 2 * len(waterfall.stages) - 1.4)
    axes.set_xticks(
        [2 * place for place in range(len(waterfall.stages))],
        [_stage_text(stage, cell) for stage, cell in zip(waterfall.stages, waterfall.cells, strict=True)],
        fontsize=9.5,
    )
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(*span)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1, symbol=" %"))
    axes.set_ylabel("test accuracy")
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    if span[0] > 0:  # the axis does not start at zero
        axes.plot([0, 0], [0.015, 0.04], transform=axes.transAxes, clip_on=False, color="white", linewidth=2, zorder=4)
        axes.plot(
            [0, 0], [0.015, 0.04], transform=axes.transAxes, clip_on=False, color=INK, linestyle="none", zorder=5,
            marker=[(-1, -0.4), (1, 0.4)], markersize=9,
        )  # fmt: skip
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _stage_text(stage: Stage, cell: Cell) -> str:
    epsilon = "no ε" if cell.run.epsilon is None else f"ε = {epsilon_text(cell.run.epsilon)}".replace("= up to", "≤")
    return f"{fill(stage.label, 16)}\n{epsilon}"


def _draw_stages(axes: "Axes", waterfall: Waterfall, span: Span) -> None:
    """Draws a bar for each stage, in the colour of its engine, with its accuracy on top; paler if it is private."""
    for place, cell in enumerate(waterfall.cells):
        axes.bar(
            2 * place, cell.mean - span[0], BAR, bottom=span[0], color=colour_of(cell.run.pipeline, INK),
            alpha=0.9 if cell.run.epsilon is None else 0.6, zorder=2,
        )  # fmt: skip
        axes.annotate(
            f"{100 * cell.mean:.2f} %", (2 * place, cell.mean), xytext=(0, 3), textcoords="offset points", ha="center",
            fontsize=9.5, fontweight="bold", color=INK,
        )  # fmt: skip


def _draw_steps(axes: "Axes", waterfall: Waterfall) -> None:
    """Draws the change between two bars with its interval, and the number below."""
    for place, ((before, after), step) in enumerate(zip(pairwise(waterfall.cells), waterfall.steps, strict=True)):
        x = 2 * place + 1
        axes.plot([x - 1, x + BAR / 2], [before.mean] * 2, color=FLOOR, linewidth=0.8, linestyle=":", zorder=1)
        axes.plot([x - BAR / 2, x + 1], [after.mean] * 2, color=FLOOR, linewidth=0.8, linestyle=":", zorder=1)
        axes.bar(x, step.change, BAR / 2, bottom=before.mean, color=RISE if step.change > 0 else FALL, zorder=2)
        half = step.interval or 0.0
        if step.interval is not None:
            axes.errorbar(x, after.mean, yerr=half, color=INK, capsize=4, elinewidth=1.4, zorder=3)
        axes.annotate(
            change_text(step).replace(" ±", "\n±"), (x, min(before.mean, after.mean - half)), xytext=(0, -4),
            textcoords="offset points", ha="center", va="top", fontsize=9, color=INK,
        )  # fmt: skip


def _caption(waterfalls: Sequence[Waterfall], subject: str, span: Span) -> str:
    cells = [cell for waterfall in waterfalls for cell in waterfall.cells]
    counts = sorted({len(cell.seeds) for cell in cells})
    parts = [subject]
    promises = {
        f"{run.unit}-level, δ = {rounded_up(run.delta or 0.0, 6)}, {RELATIONS.get(run.relation, run.relation)}"
        for run in (cell.run for cell in cells)
        if run.unit is not None and run.relation is not None
    }
    parts += sorted(promises)
    parts.append(f"{counts[0]}{f' to {counts[-1]}' if len(counts) > 1 else ''} seed{'s' if counts[-1] > 1 else ''}")
    parts.append(f"bars: mean test accuracy, from {100 * span[0]:.1f} % and not from zero; blue: PyTorch, orange: TFF")
    parts.append(f"between them: the change in points{_method_text(waterfalls)}")
    return " · ".join(parts)


def _method_text(waterfalls: Sequence[Waterfall]) -> str:
    methods = {step.method for waterfall in waterfalls for step in waterfall.steps if step.interval is not None}
    if not methods:
        return ""
    how = {"paired": "paired over seeds", "Welch": "Welch's where seeds do not pair"}
    return f", with its 95\u00a0% t-interval, {', '.join(how[method] for method in sorted(methods, reverse=True))}"
