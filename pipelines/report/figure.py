"""The frontier as a still figure."""

from textwrap import fill
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, PercentFormatter

from pipelines.report.drawing import blank
from pipelines.report.panels import Frontier, Panel
from pipelines.report.points import Point
from pipelines.report.published_results import PublishedPoint
from pipelines.report.published_rows import published_key, reference_label
from pipelines.report.style import (
    FLOOR,
    INK,
    MARKERS,
    Span,
    accuracy_span,
    ceiling_colour,
    epsilon_span,
    epsilon_text,
    epsilon_ticks,
    line_colours,
    spread_apart,
    without_privacy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_INCHES = (6.6, 5.6)
MARGIN_CHARACTERS = 34
CAPTION_CHARACTERS = 96  # a panel
MOST_LABELS, MOST_LINES = 12, 4
"""Most lines that are named in the margin, and most lines of text in each name."""
MOST_CAPTION_LINES = 14
LABEL_GAP = 0.05
"""Share of the axis' height for each line of a label in the margin."""
NARROW = 0.06
"""Range of accuracies in which a tenth of a point is wide."""
Label = tuple[str, float, str]


def frontier_figure(frontier: Frontier) -> Figure:
    """Draws accuracy against epsilon, one panel a privacy unit, with a shared accuracy axis."""
    count = len(frontier.panels)
    figure = blank(PANEL_INCHES[0] * count, PANEL_INCHES[1], dpi=150)
    span = accuracy_span(frontier)
    for position, panel in enumerate(frontier.panels):
        axes = figure.add_subplot(1, count, position + 1)
        _dress(axes, panel, span)
        labels = _draw_references(axes, panel, span) + _draw_lines(axes, panel, span)
        _write_labels(axes, labels, span)
        for number, point in panel.published:
            _draw_published(axes, number, point, span)
    figure.suptitle("What privacy costs", x=0.01, ha="left", fontsize=15, fontweight="bold", color=INK)
    width = CAPTION_CHARACTERS * count
    caption = "\n".join(
        fill(text, width, max_lines=MOST_CAPTION_LINES, placeholder=" …")
        for text in (frontier.caption, published_key(frontier))
        if text
    )
    figure.supxlabel(caption, x=0.01, ha="left", fontsize=9, color=FLOOR)
    return figure


def _dress(axes: "Axes", panel: Panel, span: Span) -> None:
    """Titles, scales and grid."""
    axes.set_title(f"{panel.title}\n", loc="left", fontsize=12, fontweight="bold", color=INK)
    axes.text(0, 1.02, panel.promise, transform=axes.transAxes, fontsize=9.5, color=FLOOR)
    axes.set_xscale("log")
    axes.set_xlim(*epsilon_span(panel))
    ticks = epsilon_ticks(panel)
    axes.set_xticks(ticks, [epsilon_text(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("privacy loss ε (log scale): smaller is more private" if ticks else "no ε: nothing is private")
    axes.set_ylim(*span)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if span[1] - span[0] > NARROW else 1, symbol=" %"))
    axes.set_ylabel("test accuracy")
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _draw_references(axes: "Axes", panel: Panel, span: Span) -> list[Label]:
    """Ceilings dashed, floors dotted, references in thin dots; returns their labels, of those below from the lowest."""
    labels: list[Label] = []
    for ceiling in panel.ceilings:
        colour = ceiling_colour(panel, ceiling)
        axes.axhline(ceiling.point.accuracy, color=colour, linestyle=(0, (6, 3)), linewidth=1.4)
        text = without_privacy(ceiling.label, ceiling.point.accuracy)
        labels.append((text, ceiling.point.accuracy, colour))
    for dataset, share in panel.floors:
        name = "majority class" if len(panel.floors) == 1 else f"majority class, {dataset}"
        below = share < span[0]
        if not below:
            axes.axhline(share, color=FLOOR, linestyle=":", linewidth=1.6)
        labels.append((f"{name}: {100 * share:.1f} %{' ↓' if below else ''}", max(share, span[0]), FLOOR))
    for reference in panel.references:
        below = reference.accuracy < span[0]
        if not below:
            axes.axhline(reference.accuracy, color=FLOOR, linestyle=":", linewidth=0.9)
        text = f"{reference_label(reference)}{' ↓' if below else ''}"
        labels.append((text, max(reference.accuracy, span[0]), FLOOR))
    return labels


def _draw_lines(axes: "Axes", panel: Panel, span: Span) -> list[Label]:
    """Draws private lines with intervals and values; returns their labels."""
    labels: list[Label] = []
    for index, (line, colour) in enumerate(zip(panel.lines, line_colours(panel.lines), strict=True)):
        x = [point.privacy.epsilon for point in line.points if point.privacy is not None]
        y = [point.accuracy for point in line.points]
        bars = [point.interval or 0.0 for point in line.points]
        axes.errorbar(
            x, y, yerr=bars, color=colour, marker=MARKERS[index % len(MARKERS)], markersize=6.5, linewidth=2,
            capsize=3, elinewidth=1.2, zorder=3, label=line.label,
        )  # fmt: skip
        for point in line.points:
            _draw_audit(axes, point, colour)
        decimals = 2 if span[1] - span[0] < NARROW else 1
        # Numbers stand right of each bar's foot, clear of bar and rising line. With several lines they would collide.
        for place, value, bar in zip(x, y, bars, strict=True) if len(panel.lines) == 1 else ():
            axes.annotate(
                f"{100 * value:.{decimals}f}", (place, value - bar), xytext=(4, -2), textcoords="offset points",
                ha="left", va="top", fontsize=8.5, color=colour,
            )  # fmt: skip
        labels.append((line.label, y[-1], colour))
    return labels


def _draw_published(axes: "Axes", number: int, point: PublishedPoint, span: Span) -> None:
    """Draws a hollow mark with its number for the key, and a thin line to the published epsilon if it differs.

    A diamond stands at the epsilon that our accountant computes. A square stands at the published epsilon, where its
    parameters are not known.
    """
    here = point.epsilon_here or point.epsilon
    # A mark below the axis is drawn on its edge, with an arrow.
    below = point.accuracy < span[0]
    height = span[0] + 0.02 * (span[1] - span[0]) if below else point.accuracy
    if here != point.epsilon:
        axes.plot([point.epsilon, here], [height] * 2, color=INK, linewidth=0.8, marker="|", markevery=[0], zorder=4)
    axes.plot(
        [here], [height], color=INK, marker="s" if point.epsilon_here is None else "D", markersize=6.5,
        markerfacecolor="white", markeredgewidth=1.1, zorder=4,
    )  # fmt: skip
    axes.annotate(
        f"{number}{' ↓' if below else ''}",
        (here, height),
        xytext=(0, 6),
        textcoords="offset points",
        ha="center",
        fontsize=8,
        color=INK,
    )


def _draw_audit(axes: "Axes", point: Point, colour: str) -> None:
    """Draws a band from the epsilon that an audit proved to the claimed one; a bound of zero is off the axis."""
    if point.privacy is None or point.privacy.audited is None:
        return
    left, right = max(point.privacy.audited, axes.get_xlim()[0]), point.privacy.epsilon
    axes.plot(
        [left, right], [point.accuracy] * 2, color=colour, alpha=0.35, linewidth=9, solid_capstyle="butt", zorder=2
    )


def _write_labels(axes: "Axes", labels: list[Label], span: Span) -> None:
    """Names every line in the right margin, at its height if there is room."""
    if len(labels) > MOST_LABELS:  # the best, as in the table; the interactive figure names all
        labels = sorted(labels, key=lambda label: -label[1])[:MOST_LABELS]
    texts = [fill(text, MARGIN_CHARACTERS, max_lines=MOST_LINES, placeholder=" …") for text, _, _ in labels]
    gap = LABEL_GAP * (span[1] - span[0]) * max(text.count("\n") + 1 for text in texts)
    heights = spread_apart([height for _, height, _ in labels], gap, span)
    for text, (_, _, colour), height in zip(texts, labels, heights, strict=True):
        axes.annotate(
            text, (1.015, height), xycoords=("axes fraction", "data"), va="center", fontsize=9.5, color=colour,
            fontweight="normal" if colour == FLOOR or "no privacy" in fill(text, 999) else "bold",
            annotation_clip=False,
        )  # fmt: skip
