"""Published points in figure, page, table and README: only where they may be compared, and clearly not ours."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.privacy.rounding import rounded_up
from pipelines.recipes.record_readme import published_table
from pipelines.report.figure import frontier_figure
from pipelines.report.frontier_files import write_frontier
from pipelines.report.interactive import published_hover
from pipelines.report.panels import build_frontier
from pipelines.report.points import build_points
from pipelines.report.published_results import PublishedPoint, Reference, Stage
from pipelines.report.published_rows import published_key
from pipelines.report.style import accuracy_span, epsilon_span
from pipelines.report.table import WIDTH, frontier_table
from tests.report.rows import row, sweep


def published(**changes: Any) -> PublishedPoint:
    values: dict[str, Any] = {
        "source": "A 2020", "method": "linear", "url": "https://a.b", "unit": "example", "note": "A note | with a bar.",
        "epsilon": 3.0, "delta": 1e-4, "accuracy": 0.93, "population": 9_000,
        "stages": (Stage(sample=614, noise_multiplier=3.04, steps=560),),
    }  # fmt: skip
    return PublishedPoint(**(values | changes))


def test_points_stand_with_their_unit_and_no_weaker_delta() -> None:
    ours = build_points(sweep())  # delta 1e-4
    theirs = [published(), published(unit="user"), published(delta=1e-3, stages=()), published(delta=1e-6)]
    example, user = build_frontier(ours, theirs).panels
    assert example.published == ((1, theirs[0]), (2, theirs[3]))
    assert user.published == ((3, theirs[1]),)


def test_figure_has_a_hollow_diamond_at_the_published_epsilon() -> None:
    theirs = published()
    frontier = build_frontier(build_points(sweep()), [theirs, published(stages=(), accuracy=0.3)])
    axes = frontier_figure(frontier).axes[0]
    (diamond,) = [line for line in axes.lines if line.get_marker() == "D"]
    assert np.asarray(diamond.get_xydata()).tolist() == [[theirs.epsilon_here, 0.93]]
    assert diamond.get_markerfacecolor() == "white"
    (link,) = [line for line in axes.lines if line.get_marker() == "|"]
    assert np.asarray(link.get_xydata()).tolist() == [[3.0, 0.93], [theirs.epsilon_here, 0.93]]
    # Without parameters a square, at its own epsilon; far below ours, at the foot of the axis, which stays with ours.
    (low,) = [line for line in axes.lines if line.get_marker() == "s" and line.get_markerfacecolor() == "white"]
    ((place, height),) = np.asarray(low.get_xydata()).tolist()
    assert place == 3.0
    foot, top = axes.get_ylim()
    assert 0 < (height - foot) / (top - foot) < 0.05
    assert foot > 0.7
    assert {"1", "2 ↓"} <= {text.get_text() for text in axes.texts}


def test_key_table_and_page_tell_recomputed_epsilons_from_published_ones(tmp_path: Path) -> None:
    ours = build_points(sweep())
    computed, copied = published(), published(stages=(), source="B 2021")
    keys = [published_key(build_frontier(ours, theirs)) for theirs in ([computed], [copied], [computed, copied])]
    assert [[mark for mark in "◇□" if mark in key] for key in keys] == [["◇"], ["□"], ["◇", "□"]]
    files = write_frontier(ours, tmp_path, [computed, copied])
    assert "◇1 A 2020, linear" in files.table
    assert "□2 B 2021, linear" in files.table
    html = files.html.read_text(encoding="utf-8")
    traces = json.JSONDecoder().raw_decode(html[html.rindex("Plotly.newPlot(") :].partition(",")[2].strip())[0]
    marks = [trace["marker"]["symbol"][0] for trace in traces if trace["name"].startswith("published")]
    assert marks == ["diamond", "square"]


def test_the_axes_make_room_for_published_points() -> None:
    ours = build_points([row("dp_sgd", 0.90, epsilon=e) for e in (1.0, 2.0)])
    assert accuracy_span(build_frontier(ours))[0] > 0.88
    frontier = build_frontier(ours, [published(accuracy=0.87, epsilon=9.0)])
    assert accuracy_span(frontier)[0] < 0.87
    left, right = epsilon_span(frontier.panels[0])
    assert left < 1
    assert right > 9


def test_references_are_dotted_lines_in_their_units_panel(tmp_path: Path) -> None:
    ours = build_points([*(row("dp_sgd", 0.90, epsilon=e) for e in (1.0, 2.0)), row("sgd", 0.901)])
    values = {"trees": 0.915, "linear": 0.88, "rule": 0.5}
    theirs = [Reference(label=k, accuracy=v, command=f"python {k}.py", unit="example") for k, v in values.items()]
    elsewhere = Reference(label="elsewhere", accuracy=0.95, command="python a.py", unit="user")
    figure = frontier_figure(build_frontier(ours, (), [*theirs, elsewhere]))
    (axes,) = figure.axes
    (dotted,) = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert np.asarray(dotted.get_ydata()).tolist() == [0.915, 0.915]
    foot, top = axes.get_ylim()
    assert foot > 0.88  # the lower ones would press the points together: arrows, above that of the floor
    assert 0.915 < top < 0.95
    figure.draw_without_rendering()
    places = {" ".join(text.get_text().split()): text.get_window_extent() for text in axes.texts}
    names = ["majority class: 10.0 % ↓", "rule, no privacy: 50.0 % ↓", "linear, no privacy: 88.0 % ↓", "dp_sgd"]
    boxes = [places[name] for name in [*names, "sgd, no privacy: 90.1 %", "trees, no privacy: 91.5 %"]]
    assert all(lower.y1 <= upper.y0 for lower, upper in pairwise(boxes))
    page = write_frontier(ours, tmp_path, (), theirs).html.read_text(encoding="utf-8")
    assert "trees, no privacy: 91.5 %" in page
    assert "linear, no privacy: 88.0 %" in page
    assert "python trees.py" in page


def test_table_and_page_say_whose_they_are(tmp_path: Path) -> None:
    theirs = published()
    files = write_frontier(build_points(sweep()), tmp_path, [theirs])
    (line,) = [line for line in files.table.splitlines() if line.startswith("◇1 A 2020, linear")]
    assert line.split()[-1] == "theirs"
    assert rounded_up(theirs.epsilon_here or 0.0) in line
    assert "(published 3)" in files.table.replace("\n", " ")
    assert max(map(len, files.table.splitlines())) <= WIDTH
    assert "A 2020" in files.html.read_text(encoding="utf-8")
    assert "A 2020" not in files.csv.read_text(encoding="utf-8")
    hover = published_hover(1, theirs)
    for words in ("theirs", "93 %", "published 3", "A note | with a bar.", "https://a.b"):
        assert words in hover


def test_the_readme_lists_all_of_them_with_both_epsilons() -> None:
    both = (Stage(sample=4096, noise_multiplier=3.04, steps=560), Stage(sample=60_000, noise_multiplier=8.0, steps=2))
    table = published_table([published(delta=1e-5, population=60_000, stages=both), published(stages=(), delta=1e-3)])
    assert "| 2.38 (training alone 2.26) |" in table
    assert "4,096 of 60,000, sigma 3.04, 560 steps; 60,000 of 60,000, sigma 8, 2 steps" in table
    assert "| not known" in table
    assert table.count("A note | with a bar.") == 1


def test_no_published_points_leave_no_trace() -> None:
    assert "published" not in frontier_table(build_frontier(build_points(sweep())))


def test_close_accuracies_keep_their_decimals() -> None:
    rows = [row("dp_sgd", 0.9861 + seed / 10_000, seed=seed, epsilon=1.0) for seed in range(3)]
    assert "98.62 ± 0.02 %" in frontier_table(build_frontier(build_points(rows)))
