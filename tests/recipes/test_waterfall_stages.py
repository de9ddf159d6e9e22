"""Where the accuracy goes: stages found in a record, intervals of the steps, and the figure."""

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from pipelines.core.errors import UserError
from pipelines.recipes.drift import Cell, build_cells
from pipelines.recipes.recipe import Stage
from pipelines.recipes.record import ResultRow
from pipelines.recipes.stages import Waterfall, build_waterfall, epsilon_text, step_between, waterfall_table
from pipelines.recipes.waterfall import waterfall_figure, write_waterfall
from pipelines.report.points import build_points
from tests.report import rows

from .results import row

MINUS = "\u2212"
STAGES = (Stage(label="central", pipeline="sgd"), Stage(label="noised", pipeline="dp_sgd", epsilon=1))


def cell(*accuracies: float, first: int = 0) -> Cell:
    (made,) = build_cells([row(a, seed=first + k) for k, a in enumerate(accuracies)], "here").values()
    return made


def record(central: tuple[float, ...] = (0.97, 0.98), noised: tuple[float, ...] = (0.91, 0.93)) -> list[ResultRow]:
    plain = [row(a, seed=seed, pipeline="sgd", epsilon=None) for seed, a in enumerate(central)]
    return [*plain, *(row(a, seed=seed) for seed, a in enumerate(noised))]


def waterfalls(found: list[ResultRow]) -> list[Waterfall]:
    return build_waterfall({"All": STAGES}, build_cells(found, "here"))


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_stages_with_the_same_seeds_are_compared_seed_by_seed() -> None:
    # Differences -0.03, -0.05, -0.07: mean -0.05, s = 0.02, t(2, 0.975) = 4.302653 from a printed table.
    step = step_between(cell(0.90, 0.94, 0.98), cell(0.87, 0.89, 0.91))
    assert step.method == "paired"
    assert step.change == pytest.approx(-0.05)
    assert step.interval == pytest.approx(4.302653 * 0.02 / math.sqrt(3), rel=1e-6)


def test_stages_with_other_seeds_are_compared_as_welch_did() -> None:
    before, after = (0.90, 0.92, 0.94), (0.85, 0.87, 0.84, 0.91)
    step = step_between(cell(*before), cell(*after, first=7))
    assert step.method == "Welch"
    # scipy has the p-value: at the edge of a 95 % interval it is 5 %.
    assert step.interval is not None
    for edge in (step.change - step.interval, step.change + step.interval):
        moved = np.subtract(after, edge)
        assert stats.ttest_ind(moved, before, equal_var=False).pvalue == pytest.approx(0.05, rel=1e-9)
    # Equal spreads and counts have the pooled 2n - 2 = 4 degrees of freedom: t(4, 0.975) = 2.776445.
    equal = step_between(cell(0.90, 0.92, 0.94), cell(0.80, 0.82, 0.84, first=7))
    assert equal.interval == pytest.approx(2.776445 * 0.02 * math.sqrt(2 / 3), rel=1e-6)


def test_an_interval_needs_two_seeds_and_a_spread() -> None:
    assert step_between(cell(0.9), cell(0.8)).interval is None
    assert step_between(cell(0.9), cell(0.8, 0.9, first=3)).interval is None
    assert step_between(cell(0.9, 0.9), cell(0.8, 0.8, first=3)).interval == 0


def test_paired_intervals_hold_as_often_as_promised() -> None:
    rng, held = np.random.default_rng(0), {0: 0, 100: 0}
    for _ in range(2000):
        common = rng.normal(0.9, 0.01, 5)
        for first in held:
            seeds = common if first == 0 else rng.normal(0.9, 0.01, 5)
            before, after = common + rng.normal(0, 0.002, 5), seeds - 0.02 + rng.normal(0, 0.002, 5)
            step = step_between(cell(*before), cell(*after, first=first))
            assert step.interval is not None
            held[first] += abs(step.change + 0.02) <= step.interval
    # Four standard errors of a share of 0.95 in 2000.
    for count in held.values():
        assert count / 2000 == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 2000))


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"pipeline": "fed_avg"}, "stage 'a' (fed_avg, no target epsilon) is none of the rows: dp_sgd, 1.0; sgd,"),
        ({"pipeline": "dp_sgd"}, "stage 'a' (dp_sgd, no target epsilon) is none of"),
        ({"pipeline": "dp_sgd", "epsilon": 2}, "stage 'a' (dp_sgd, epsilon=2) is none of"),
        ({"pipeline": "sgd", "variant": "far"}, "stage 'a' (sgd, far, no target epsilon) is none of"),
        ({"pipeline": "dp_sgd", "epsilon": 1}, "is 2 of the rows"),
    ],
)
def test_a_stage_that_is_not_one_row_is_refused(stage: dict[str, object], message: str) -> None:
    others = [ResultRow(**{**found.model_dump(), "unit": "household"}) for found in record()[2:]]
    found = [*record(), *(others if "2 of" in message else [])]
    with pytest.raises(UserError) as error:
        build_waterfall({"All": (STAGES[0], Stage.model_validate({"label": "a", **stage}))}, build_cells(found, "here"))
    assert message in str(error.value)
    assert str(error.value).startswith("waterfall, All: ")
    assert "\n" not in str(error.value)


def test_the_table_has_a_line_a_stage() -> None:
    lines = waterfall_table(waterfalls(record())).splitlines()
    assert len(lines) == 4
    assert [part.strip() for part in lines[2].split("|")[1:-1]] == ["All", "central", "none", "97.50 %", "", "", "2"]
    # Differences -0.06 and -0.05: s / sqrt(2) = 0.005, t(1, 0.975) = 12.7062.
    assert [part.strip() for part in lines[3].split("|")[3:-2]] == ["0.998", "92.00 %", f"{MINUS}5.50 ± 6.35", "paired"]


def test_figure_prints_accuracies_and_costs_inside_its_axes() -> None:
    figure = waterfall_figure([*waterfalls(record()), *waterfalls(record(noised=(0.98, 0.99)))], "digits · linear")
    assert texts(figure) == ["97.50 %", "92.00 %", f"{MINUS}5.50\n± 6.35", "97.50 %", "98.50 %", "+1.00\n± 0.00"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["central\nno ε", "noised\nε = 0.998"]
    figure.canvas.draw()
    for axes in figure.axes:
        assert axes.get_ylim() == figure.axes[0].get_ylim()
        frame = axes.get_window_extent().padded(1)
        boxes = [text.get_window_extent() for text in axes.texts]
        assert all(frame.containsy(box.y0) and frame.containsx(box.x0) and frame.containsx(box.x1) for box in boxes)
        assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])
    caption = " ".join(figure.get_supxlabel().split())
    assert "digits · linear · example-level, δ = 0.0001, add or remove one · 2 seeds" in caption
    assert "95 %" in caption
    assert "paired" in caption


def test_the_figure_says_which_intervals_it_has() -> None:
    (single,) = waterfalls(record(central=(0.97,), noised=(0.9,)))
    assert texts(waterfall_figure([single], "a"))[-1] == f"{MINUS}7.00"
    assert "95 %" not in waterfall_figure([single], "a").get_supxlabel()
    unpaired = waterfalls([*record()[:2], *(row(a, seed=5 + k) for k, a in enumerate((0.91, 0.93)))])
    caption = " ".join(waterfall_figure([*unpaired, *waterfalls(record())], "a").get_supxlabel().split())
    assert "paired" in caption
    assert "Welch" in caption


def test_an_epsilon_that_promises_nothing_is_its_magnitude() -> None:
    assert [epsilon_text(epsilon) for epsilon in (0.5, 1.9998, 12.34, 1.24e7)] == ["0.5", "2", "12.4", "up to 2e7"]


def test_the_file_is_an_image_with_a_caption(tmp_path: Path) -> None:
    files = write_waterfall(waterfalls(record()), build_points(rows.sweep()), tmp_path / "new")
    assert files.png.read_bytes().startswith(b"\x89PNG")
    assert "| central" in files.table
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is not writable"):
        write_waterfall(waterfalls(record()), [], tmp_path / "file")
