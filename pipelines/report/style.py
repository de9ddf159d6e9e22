"""Shared by the still and the interactive figure: colours, ranges and the places of labels."""

from collections.abc import Sequence

from pipelines.config.pipeline_table import PIPELINES, Framework
from pipelines.privacy.rounding import rounded_up
from pipelines.report.panels import Ceiling, Frontier, Line, Panel

# Okabe & Ito's palette, distinct with every common colour blindness. Hue shows the engine, line style shows privacy.
CENTRAL, FEDERATED, FLOOR, INK = "#0072B2", "#D55E00", "#767676", "#222222"
MORE = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "v", "P", "X")  # no diamond: published points have diamonds and hollow squares
Span = tuple[float, float]
COLOURS: dict[Framework, str] = {"central": CENTRAL, "federated": FEDERATED}


def colour_of(pipeline: str, otherwise: str) -> str:
    """A pipeline's colour, which is that of its framework; another colour for an unknown pipeline."""
    row = PIPELINES.get(pipeline)
    return otherwise if row is None else COLOURS[row.framework]


def line_colours(lines: Sequence[Line]) -> list[str]:
    """The pipeline's colour for its first line, and further hues for its other lines."""
    colours: list[str] = []
    spare = 0
    for line in lines:
        own = colour_of(line.pipeline, MORE[0])
        if own in colours:
            own, spare = MORE[spare % len(MORE)], spare + 1
        colours.append(own)
    return colours


def ceiling_colour(panel: Panel, ceiling: Ceiling) -> str:
    """The colour of the line with the same variant and engine if there is one; else the pipeline's."""
    own = colour_of(ceiling.point.pipeline, INK)
    if ceiling.point.variant:
        for line, colour in zip(panel.lines, line_colours(panel.lines), strict=True):
            if line.points[0].variant == ceiling.point.variant and colour_of(line.pipeline, INK) == own:
                return colour
    return own


def accuracy_span(frontier: Frontier) -> Span:
    """Range of the accuracy axis, the same in all panels.

    Floors and references are inside, unless they are so far below that the points would shrink to a stripe. The figures
    then state their values. Published points may lie somewhat further below.
    """
    lows = [point.accuracy - (point.interval or 0.0) for point in frontier.points]
    highs = [point.accuracy + (point.interval or 0.0) for point in frontier.points]
    low, high = min(lows), min(1.0, max(highs))
    spread = max(high - low, 0.02)
    floors = [share for panel in frontier.panels for _, share in panel.floors]
    references = [reference.accuracy for panel in frontier.panels for reference in panel.references]
    published = [point.accuracy for panel in frontier.panels for _, point in panel.published]
    high = max([high, *published, *references])
    low = min([low, *(share for share in published if low - share <= 2 * spread)])
    low = min([low, *(share for share in (*floors, *references) if low - share <= spread / 2)])
    margin = 0.08 * max(high - low, 0.02)
    return max(0.0, low - margin), min(1.01, high + 1.5 * margin)


def epsilon_ticks(panel: Panel) -> list[float]:
    """The epsilons of a panel, without those too close to their neighbour to be readable."""
    ticks: list[float] = []
    for epsilon in sorted(p.privacy.epsilon for line in panel.lines for p in line.points if p.privacy is not None):
        if not ticks or epsilon > 1.12 * ticks[-1]:
            ticks.append(epsilon)
    return ticks


def epsilon_span(panel: Panel) -> Span:
    """Range of the epsilon axis, with room at both ends."""
    published = [point.epsilon for _, point in panel.published]
    here = [point.epsilon_here for _, point in panel.published if point.epsilon_here is not None]
    inside = [*epsilon_ticks(panel), *published, *here] or [1.0]
    return min(inside) / 1.35, max(inside) * 1.35


def epsilon_text(epsilon: float) -> str:
    """An epsilon as a tick: two significant digits, so that a realised 0.998 reads as its target, 1."""
    return rounded_up(epsilon, 2) if epsilon < 10 else rounded_up(epsilon, 3)


def without_privacy(label: str, accuracy: float) -> str:
    """The label of a line without privacy."""
    return f"{label}, no privacy: {100 * accuracy:.1f} %"


def spread_apart(places: Sequence[float], gap: float, span: Span) -> list[float]:
    """Moves label places as little as needed to keep them `gap` apart and inside the span; keeps their order."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = [0.0] * len(places)
    below = float("-inf")
    for index in order:
        moved[index] = below = max(places[index], below + gap, span[0])
    above = span[1] + gap
    for index in reversed(order):
        moved[index] = above = min(moved[index], above - gap)
    return moved
