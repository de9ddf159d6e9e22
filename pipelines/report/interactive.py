"""The frontier as one HTML file that needs no network."""

from html import escape
from math import log10
from string import Template
from textwrap import wrap

import plotly.graph_objects as go
from plotly.io import to_html
from plotly.subplots import make_subplots

from pipelines.privacy.mechanisms.base import NeighboringRelation, PrivacyUnit
from pipelines.privacy.rounding import rounded_down, rounded_up
from pipelines.privacy.statement import bound_in_words
from pipelines.report.command import commands, folded
from pipelines.report.panels import PROMISES, RELATIONS, Frontier, Panel
from pipelines.report.points import Point
from pipelines.report.published_results import PublishedPoint
from pipelines.report.published_rows import epsilon_in_words, published_key, reference_label
from pipelines.report.style import (
    FLOOR,
    INK,
    Span,
    accuracy_span,
    ceiling_colour,
    epsilon_span,
    epsilon_text,
    epsilon_ticks,
    line_colours,
    without_privacy,
)
from pipelines.report.table import accuracy_text

SYMBOLS = ("circle", "square", "triangle-up", "triangle-down", "cross", "x")
KEEP = """
document.getElementById('{plot_id}').on('plotly_click', event => {
  const page = document.createElement('div');
  const shown = event.points[0].customdata || event.points[0].hovertext || '';
  page.innerHTML = shown.replaceAll('<br>', '\\n');
  document.getElementById('statement').textContent = page.textContent;
});
"""
"""Script that writes the guarantee of a clicked point, or its hover text, to a place where it can be copied."""
PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>What privacy costs: $caption</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; color: $ink; max-width: 1280px; margin: 2rem auto; padding: 0 1.5rem; }
  h1 { font-size: 1.5rem; margin: 0; }
  p { margin: .3rem 0 1rem; color: #555; max-width: 85ch; }
  p.facts { max-width: none; }
  pre { font: 13px/1.5 ui-monospace, monospace; background: #f6f6f6; border-left: 3px solid #999; padding: .8rem 1rem;
    min-height: 1.5em; white-space: pre-wrap; user-select: text; }
</style>
</head>
<body>
<h1>What privacy costs</h1>
<p class="facts">$caption</p>
$figure
<pre id="statement">Click a point to read what it promises, in plain words, and the command that repeats it, here.</pre>
<p>Each point is one configuration, averaged over its seeds. Hover for its guarantee and the command that repeats it;
click a name in the legend to hide it in both panels, click it twice to see it alone. Panels are apart because an
example-level ε and a user-level ε promise different things: never read one against the other.</p>
<p>$theirs</p>
</body>
</html>
""")


def frontier_html(frontier: Frontier) -> str:
    """Renders the page, with the plotting library inside."""
    count = len(frontier.panels)
    titles = [
        f"<b>{panel.title}</b><br><span style='font-size:13px'>{panel.promise}</span>" for panel in frontier.panels
    ]
    figure = make_subplots(rows=1, cols=count, subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.06)
    figure.update_annotations(font={"size": 16, "color": INK})
    span = accuracy_span(frontier)
    for column, panel in enumerate(frontier.panels, start=1):
        _add_lines(figure, panel, column)
        _add_references(figure, panel, column, span)
        for number, point in panel.published:
            _add_published(figure, number, point, column, span)
        ticks = epsilon_ticks(panel)
        figure.update_xaxes(
            type="log", range=[log10(end) for end in epsilon_span(panel)], tickvals=ticks,
            ticktext=[epsilon_text(tick) for tick in ticks],
            title="privacy loss ε (log scale): smaller is more private",
            showgrid=False, linecolor="#999", ticks="outside", row=1, col=column,
        )  # fmt: skip
    figure.update_yaxes(range=list(span), tickformat=".2~%", gridcolor="#e6e6e6", zeroline=False)
    figure.update_yaxes(title="test accuracy", row=1, col=1)
    figure.update_layout(
        template="plotly_white", height=580, margin={"l": 70, "r": 20, "t": 80, "b": 140},
        legend={"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0},
        hoverlabel={"align": "left", "font": {"size": 13}},
        font={"family": "system-ui, sans-serif", "color": INK},
    )  # fmt: skip
    body = to_html(
        figure, full_html=False, include_plotlyjs=True, default_height="580px",
        config={"displaylogo": False, "responsive": True, "showSendToCloud": False, "plotlyServerURL": ""},
        post_script=KEEP,
    )  # fmt: skip
    theirs = escape(published_key(frontier))
    return PAGE.substitute(caption=escape(frontier.caption), ink=INK, figure=body, theirs=theirs)


def _add_lines(figure: go.Figure, panel: Panel, column: int) -> None:
    for index, (line, colour) in enumerate(zip(panel.lines, line_colours(panel.lines), strict=True)):
        figure.add_scatter(
            x=[point.privacy.epsilon for point in line.points if point.privacy is not None],
            y=[point.accuracy for point in line.points],
            error_y={"array": [point.interval or 0.0 for point in line.points], "thickness": 1.4, "width": 4},
            mode="lines+markers", name=line.label, line={"color": colour, "width": 2.5},
            marker={"size": 9, "symbol": SYMBOLS[index % len(SYMBOLS)]},
            hovertext=[hover_text(point) for point in line.points], hoverinfo="text",
            customdata=[kept_text(point) for point in line.points], legendgroup=line.label,
            showlegend=_is_new(figure, line.label), row=1, col=column,
        )  # fmt: skip
        for point in line.points:
            _add_audit(figure, point, column, left=epsilon_span(panel)[0], colour=colour, group=line.label)


def _add_audit(figure: go.Figure, point: Point, column: int, *, left: float, colour: str, group: str) -> None:
    """Draws a band from the epsilon that an audit proved to the claimed one; it hides with its line."""
    if point.privacy is None or point.privacy.audited is None:
        return
    figure.add_scatter(
        x=[max(point.privacy.audited, left), point.privacy.epsilon], y=[point.accuracy] * 2, mode="lines",
        line={"color": colour, "width": 11}, opacity=0.35, showlegend=False, legendgroup=group,
        hovertext=hover_text(point), hoverinfo="text", customdata=[kept_text(point)] * 2, row=1, col=column,
    )  # fmt: skip


def _add_references(figure: go.Figure, panel: Panel, column: int, span: Span) -> None:
    """Draws ceilings, floors and references as traces of two points, which have a legend entry and hover text."""
    ends = list(epsilon_span(panel))
    for ceiling in panel.ceilings:
        # A ceiling that is in two panels has one entry in the legend.
        group = f"{ceiling.label}, no privacy"
        figure.add_scatter(
            x=ends, y=[ceiling.point.accuracy] * 2, mode="lines",
            name=without_privacy(ceiling.label, ceiling.point.accuracy),
            line={"color": ceiling_colour(panel, ceiling), "dash": "dash", "width": 1.8},
            hovertext=hover_text(ceiling.point), hoverinfo="text", legendgroup=group,
            showlegend=_is_new(figure, group),
            row=1, col=column,
        )  # fmt: skip
    for dataset, share in panel.floors:
        group = f"floor {dataset}"
        text = f"majority class{'' if len(panel.floors) == 1 else ', ' + dataset}: {100 * share:.1f} %"
        figure.add_scatter(
            x=ends, y=[share] * 2, mode="lines", name=f"{text}{' (below the axis)' if share < span[0] else ''}",
            line={"color": FLOOR, "dash": "dot", "width": 1.8}, hovertext=text, hoverinfo="text",
            legendgroup=group, showlegend=_is_new(figure, group), row=1, col=column,
        )  # fmt: skip
    for reference in panel.references:
        text = reference_label(reference)
        figure.add_scatter(
            x=ends, y=[reference.accuracy] * 2, mode="lines", line={"color": FLOOR, "dash": "dot", "width": 1},
            name=f"{text}{' (below the axis)' if reference.accuracy < span[0] else ''}", legendgroup=text,
            hovertext=f"{escape(text)}<br>not our run<br>{escape(reference.command)}", hoverinfo="text",
            showlegend=_is_new(figure, text), row=1, col=column,
        )  # fmt: skip


def _add_published(figure: go.Figure, number: int, point: PublishedPoint, column: int, span: Span) -> None:
    """Draws a hollow mark, as in the still figure: diamonds at our epsilon, squares at the published one."""
    here = point.epsilon_here or point.epsilon
    places = list(dict.fromkeys((here, point.epsilon)))
    below = point.accuracy < span[0]
    height = span[0] + 0.02 * (span[1] - span[0]) if below else point.accuracy
    symbol, name = ("square", "their own ε") if point.epsilon_here is None else ("diamond", "the ε of our accountant")
    group = f"published, at {name}"
    figure.add_scatter(
        x=places, y=[height] * len(places), mode="lines+markers+text", text=[f"{number}{' ↓' if below else ''}", ""],
        textposition="top center", name=group, legendgroup=group, showlegend=_is_new(figure, group),
        line={"color": INK, "width": 0.8},
        marker={
            "size": [10, 7], "color": "white", "line": {"width": 1.2, "color": INK},
            "symbol": [symbol, "line-ns"],
        },
        hovertext=published_hover(number, point), hoverinfo="text", row=1, col=column,
    )  # fmt: skip


def _is_new(figure: go.Figure, group: str) -> bool:
    """Whether a group has no entry in the legend yet; one entry serves all panels."""
    return not any(trace.legendgroup == group for trace in figure.data)


def published_hover(number: int, point: PublishedPoint) -> str:
    """Hover text of a published point: its guarantee, and what the number leaves out."""
    lines = [
        f"<b>{number} {escape(point.label)}</b>: theirs, not our run",
        f"accuracy {100 * point.accuracy:.4g} %, {escape(epsilon_in_words(point))}, δ = {rounded_up(point.delta, 6)}",
        *wrap(escape(point.note), 70),
        escape(point.url),
    ]
    return "<br>".join(lines)


def hover_text(point: Point) -> str:
    """Hover text of a point: its guarantee in brief, and the command that repeats it."""
    return "<br>".join([*_facts(point), *_again(point)])


def kept_text(point: Point) -> str:
    """Text for a clicked point: the hover text, and the guarantee in a sentence if the point is private."""
    if point.privacy is None:
        return hover_text(point)
    p = point.privacy
    bound = bound_in_words(
        PrivacyUnit(p.unit), NeighboringRelation(p.relation), population=p.population, epsilon=p.epsilon, delta=p.delta
    )
    secret = "With secret randomness: " if p.simulated else ""
    return "<br>".join([*_facts(point), "", f"{secret}{escape(bound)}", "", *_again(point)])


def _facts(point: Point) -> list[str]:
    name = ", ".join(filter(None, (point.pipeline, point.variant)))
    lines = [f"<b>{escape(name)}</b>", f"accuracy {accuracy_text(point)}"]
    if point.privacy is None:
        lines.append("no privacy guarantee, hence no ε")
    else:
        p = point.privacy
        sigma = "" if p.noise_multiplier is None else f", sigma = {rounded_down(p.noise_multiplier)}"
        lines += [
            f"ε = {rounded_up(p.epsilon)}, δ = {rounded_up(p.delta, 6)}{sigma}",
            f"unit: {escape(p.unit)}; neighbours: {escape(RELATIONS.get(p.relation, p.relation))}",
            escape(PROMISES.get(p.unit, "")),
            f"accountant: {escape(p.accountant)}",
        ]
        if p.audited is not None:
            lines.append(f"audit: ε is at least {rounded_down(p.audited)}")
        if p.simulated:
            lines.append("noise from a fixed seed: not private to anyone who knows the seed")
    return lines


def _again(point: Point) -> list[str]:
    lines = [f"{len(point.seeds)} seed{'s' if len(point.seeds) > 1 else ''}: {', '.join(point.seeds)}"]
    for command in commands([point]):
        lines += ["", *map(escape, folded(command, 70))]
    return lines
