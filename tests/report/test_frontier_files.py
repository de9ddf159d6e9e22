import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.core.errors import UserError
from pipelines.privacy.mechanisms.base import NeighboringRelation, PrivacyUnit
from pipelines.privacy.statement import bound_in_words
from pipelines.report.figure import frontier_figure
from pipelines.report.frontier_files import FrontierFiles, write_frontier
from pipelines.report.interactive import hover_text, kept_text
from pipelines.report.panels import build_frontier
from pipelines.report.points import build_points
from pipelines.report.style import accuracy_span, epsilon_ticks, spread_apart
from pipelines.report.table import AUDIT, WIDTH, frontier_table
from pipelines.tracking.read import VARIANT_TAG, RunRow
from tests.report.rows import row, sweep

TREE = "zero_out_one"
UNITS = ("example", "user")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> FrontierFiles:
    return write_frontier(build_points(sweep()), tmp_path_factory.mktemp("frontier") / "new")


def test_csv_holds_every_point_in_full(files: FrontierFiles) -> None:
    with files.csv.open(newline="", encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    points = build_points(sweep())
    assert len(records) == len(points) == 8
    for record, point in zip(records, points, strict=True):
        assert (record["pipeline"], float(record["accuracy"])) == (point.pipeline, point.accuracy)
        assert float(record["accuracy_interval"]) == point.interval
        assert record["seeds"].split() == ["0", "1"]
        assert len(record["run_ids"].split()) == 2
        if point.privacy is None:
            assert [record[name] for name in ("epsilon", "delta", "unit", "accountant", "simulated")] == [""] * 5
        else:
            assert (float(record["epsilon"]), float(record["delta"])) == (point.privacy.epsilon, point.privacy.delta)
            assert (record["unit"], record["relation"]) == (point.privacy.unit, point.privacy.relation)


def test_html_loads_nothing_from_elsewhere(files: FrontierFiles) -> None:
    html = files.html.read_text(encoding="utf-8")
    assert len(html) > 3_000_000, "the plotting library is inside"
    assert not re.search(r"""<(script|link|img|iframe)[^>]*\s(src|href)\s*=""", html)
    assert "@import" not in html.partition("<script")[0]


def test_legend_stands_for_both_panels_and_clicks_keep_statements(files: FrontierFiles) -> None:
    html = files.html.read_text(encoding="utf-8")
    traces = traces_in(html)
    groups = [(trace["legendgroup"], trace["showlegend"]) for trace in traces]
    assert groups.count(("sgd, no privacy", True)) == groups.count(("sgd, no privacy", False)) == 1
    assert [group for group, shown in groups if shown] == sorted({group for group, _ in groups}, key=groups_in(groups))
    kept = [text for trace in traces for text in trace.get("customdata", ())]
    panels = build_frontier(build_points(sweep())).panels
    assert kept == [kept_text(point) for panel in panels for line in panel.lines for point in line.points]


def traces_in(html: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.JSONDecoder().raw_decode(
        html[html.rindex("Plotly.newPlot(") :].partition(",")[2].strip()
    )[0]
    return found


def groups_in(groups: list[tuple[str, bool]]) -> Callable[[str], int]:
    return [group for group, _ in groups].index


def test_png_is_an_image(files: FrontierFiles) -> None:
    assert files.png.read_bytes().startswith(b"\x89PNG")


def test_table_orders_epsilons_and_fits_a_terminal(files: FrontierFiles) -> None:
    lines = files.table.splitlines()
    assert max(map(len, lines)) <= WIDTH
    private = [line.split() for line in lines if line.startswith("dp_sgd")]
    assert [words[1] for words in private] == ["0.998", "1.996", "3.992"]
    (ceiling, _) = [line for line in lines if line.startswith("sgd")]
    assert "none" in ceiling
    assert sum(line.startswith("majority class") for line in lines) == 2


def test_table_has_the_sentence_of_each_guarantee() -> None:
    rows = [row("dp_fed_avg", 0.9, epsilon=2.0, unit="user", relation=name) for name in ("add_or_remove_one", TREE)]
    frontier = build_frontier(build_points([*rows, row("dp_sgd", 0.9, epsilon=1.0)]))
    example, user = " ".join(frontier_table(frontier).split()).split("User-level privacy")
    added = {unit: bound_in_words(PrivacyUnit(unit), NeighboringRelation.ADD_OR_REMOVE_ONE) for unit in UNITS}
    zeroed = bound_in_words(PrivacyUnit.USER, NeighboringRelation.REPLACE_SPECIAL)
    assert [sentence in example for sentence in (*added.values(), zeroed)] == [True, False, False]
    assert [sentence in user for sentence in (*added.values(), zeroed)] == [False, True, True]
    assert "e^epsilon" not in frontier_table(build_frontier(build_points([row("sgd", 0.9)])))


def test_table_has_an_audit_column_where_audits_ran() -> None:
    rows = [row("dp_sgd", 1.0, seed=s, epsilon=1.0, audited=bound) for s, bound in enumerate((0.62, 0.77))]
    rows += [row("dp_sgd", 0.9, epsilon=2.0), row("dp_fed_avg", 0.9, epsilon=4.0, unit="user")]
    rows += [row("dp_sgd", 0.9, epsilon=3.0)]
    rows[-1].tags[VARIANT_TAG] = "long " * 20
    table = frontier_table(build_frontier(build_points(rows)))
    lines = table.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert sum(line.split() == ["epsilon", *AUDIT.split(), "sigma", "accuracy", "seeds"] for line in lines) == 2
    assert [line.split()[:3] for line in lines if line.startswith("dp_sgd  ")] == [
        ["dp_sgd", "0.998", "0.62"],
        ["dp_sgd", "1.996", "90.0"],
    ]
    assert "audit" not in frontier_table(build_frontier(build_points(rows[2:])))


def test_long_labels_do_not_widen_the_table(tmp_path: Path) -> None:
    rows = [
        row(
            "dp_fed_avg",
            0.9,
            epsilon=2.0,
            unit="user",
            params={f"pipeline.a_long_setting_name_{n}": rate for n in range(5)},
        )
        for rate in ("0.1", "0.5")
    ]
    assert max(map(len, write_frontier(build_points(rows), tmp_path).table.splitlines())) <= WIDTH


def test_figure_has_one_axis_a_unit_with_epsilon_ticks() -> None:
    figure = frontier_figure(build_frontier(build_points(sweep())))
    assert [axes.get_title("left").strip() for axes in figure.axes] == ["Example-level privacy", "User-level privacy"]
    for axes in figure.axes:
        assert axes.get_xscale() == "log"
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "4"]
        assert axes.get_ylim() == figure.axes[0].get_ylim()


def test_non_private_runs_alone_make_a_figure_without_epsilons(tmp_path: Path) -> None:
    files = write_frontier(build_points([row("sgd", 0.9), row("fed_avg", 0.8)]), tmp_path)
    (axes,) = frontier_figure(build_frontier(build_points([row("sgd", 0.9)]))).axes
    assert list(axes.get_xticks()) == []
    assert "none" in files.table


def test_hover_names_the_guarantee_and_the_command() -> None:
    private = row("dp_sgd", 0.9, epsilon=2.0)
    private.tags["overrides"] = "pipeline=dp_sgd <b>"
    (point,) = build_points([private])
    text = hover_text(point)
    for words in (
        "dp_sgd",
        "ε = 1.996",
        "δ = 0.0001",
        "unit: example",
        "1 seed: 0",
        "&#x27;pipeline=dp_sgd &lt;b&gt;&#x27; seed=0",
    ):
        assert words in text
    assert "&lt;b&gt;" in text
    (ceiling,) = build_points([row("sgd", 0.9)])
    assert "no ε" in hover_text(ceiling)


def test_a_click_keeps_the_sentence_of_the_guarantee() -> None:
    hidden = row("dp_sgd", 0.9, epsilon=2.0)
    known = row("dp_fed_avg", 0.9, epsilon=3.0, unit="user", relation="zero_out_one", simulated="true")
    points = build_points([hidden, known, row("sgd", 0.9)], {known.run_id: 1234}.get)
    federated, private, ceiling = (kept_text(point) for point in points)
    # e^1.996 = 7.3596, e^2.994 = 19.965.
    for text, numbers in (
        (private, ("training example", "e^1.996 = 7.36", "0.0001")),
        (federated, ("1,234 users", "e^2.994 = 20", "0.0001")),
    ):
        (sentence,) = [line for line in text.split("<br>") if "e^" in line]
        assert all(number in sentence for number in numbers)
    assert ceiling == hover_text(points[2])
    assert set(hover_text(points[1]).split("<br>")) < set(private.split("<br>"))


def test_audited_points_have_a_band_from_bound_to_claim(tmp_path: Path) -> None:
    rows = [row("dp_sgd", 0.8, epsilon=1.0, audited=0.0), row("dp_sgd", 0.9, epsilon=2.0, audited=1.5)]
    frontier = build_frontier(build_points([*rows, row("dp_sgd", 0.95, epsilon=4.0)]))
    (axes,) = frontier_figure(frontier).axes
    bands = [np.asarray(line.get_xydata()).tolist() for line in axes.lines if line.get_linewidth() == 9]
    # A bound of zero reaches the left edge of the logarithmic axis.
    assert bands == [[[axes.get_xlim()[0], 0.8], [0.998, 0.8]], [[1.5, 0.9], [1.996, 0.9]]]
    assert "audit proved" in frontier.caption
    files = write_frontier(build_points(rows), tmp_path)
    with files.csv.open(newline="", encoding="utf-8") as file:
        assert [record["epsilon_lower_bound"] for record in csv.DictReader(file)] == ["0.0", "1.5"]
    assert "audit: ε is at least 1.5" in hover_text(build_points(rows)[1])


def test_floor_far_below_leaves_the_axis_to_the_points() -> None:
    near = build_frontier(build_points([row("dp_sgd", 0.15, epsilon=1.0), row("sgd", 0.9)]))
    assert accuracy_span(near)[0] < 0.1
    far = build_frontier(build_points([row("dp_sgd", 0.85, epsilon=1.0), row("sgd", 0.9)]))
    assert accuracy_span(far)[0] > 0.8


def test_crowded_epsilons_share_a_tick() -> None:
    rows = [row("dp_sgd", 0.9, epsilon=epsilon) for epsilon in (1.0, 1.05, 2.0)]
    (panel,) = build_frontier(build_points(rows)).panels
    assert epsilon_ticks(panel) == pytest.approx([0.998, 1.996])


def test_labels_keep_their_distance_and_order() -> None:
    assert spread_apart([0.5, 0.51, 0.1], 0.1, (0.0, 1.0)) == pytest.approx([0.5, 0.6, 0.1])
    assert spread_apart([0.99, 1.0], 0.1, (0.0, 1.0)) == pytest.approx([0.9, 1.0])


def test_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is not writable"):
        write_frontier(build_points(sweep()), tmp_path / "file" / "folder")


def large_sweep(pipeline: str = "dp_sgd") -> list[RunRow]:
    """54 runs over four settings, with names that nobody would choose."""
    epsilon = 3.0 if pipeline == "dp_sgd" else None
    rows = []
    for number in range(54):
        params = {f"pipeline.setting_{axis}": str(number // 3**axis % 3) for axis in range(4)}
        accuracy = 0.5 + (number * 37 % 54) / 200
        rows.append(row(pipeline, accuracy, epsilon=epsilon, params=params))
        rows[-1].tags["overrides"] = " ".join(f"{key}={value}" for key, value in params.items())
        rows[-1].tags["dataset"] = "a$b$c^ " + "long_name_" * 20
    return rows


@pytest.mark.parametrize("pipeline", ["dp_sgd", "sgd"])
def test_a_large_sweep_shows_its_best_ten_and_what_differs(pipeline: str) -> None:
    points = build_points(large_sweep(pipeline))
    table = frontier_table(build_frontier(points))
    lines = table.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert len(lines) < 70
    best = [float(found) for line in lines if (found := " ".join(re.findall(r"(\d\d\.\d) %  ", line)))][:10]
    assert best == sorted((100 * point.accuracy for point in points), reverse=True)[:10]
    assert re.search(r"\(44 .*frontier\.csv\)", table)
    again = table.partition("Again:")[2]
    assert len(again.strip().splitlines()) <= 11
    assert "frontier.csv" in again
    assert all(f"setting_{axis}=" in table for axis in range(4))


@pytest.mark.filterwarnings("error")
def test_a_large_sweep_is_drawn_without_warnings(tmp_path: Path) -> None:
    assert write_frontier(build_points(large_sweep()), tmp_path).png.stat().st_size > 0
