"""A private point above its own ceiling is said, one below it or beside another's is not."""

from dataclasses import replace

from pipelines.report.panels import build_frontier
from pipelines.report.points import build_points
from pipelines.report.table import frontier_table
from pipelines.report.untuned import untuned_ceilings

from .rows import row, sweep


def test_a_frontier_below_its_ceilings_says_nothing() -> None:
    assert untuned_ceilings(build_frontier(build_points(sweep()))) == ""


def test_the_point_that_exceeds_its_ceiling_most_is_named() -> None:
    rows = [row("sgd", 0.852), row("dp_sgd", 0.863, epsilon=1.0), row("dp_sgd", 0.857, epsilon=3.0)]
    frontier = build_frontier(build_points(rows))
    line = untuned_ceilings(frontier)
    assert "dp_sgd at epsilon 0.998 (86.30 %)" in line
    assert "sgd (85.20 %)" in line
    assert " 2 " in line  # points that exceed it
    assert line in " ".join(frontier_table(frontier).split())


def test_only_the_best_ceiling_of_pipeline_and_data_counts() -> None:
    private = row("dp_fed_avg", 0.9, epsilon=1.0, unit="user")
    assert "fed_avg (80.00 %)" in untuned_ceilings(
        build_frontier(build_points([private, row("fed_avg", 0.8), row("sgd", 0.95)]))
    )
    tuned = row("fed_avg", 0.95, params={"pipeline.rounds": "99"})
    other = row("fed_avg", 0.8)
    elsewhere = replace(other, tags=other.tags | {"data.sha256": "cd" * 32})
    for ceilings in ([row("fed_avg", 0.8), tuned], [elsewhere], []):
        assert untuned_ceilings(build_frontier(build_points([private, *ceilings]))) == ""
