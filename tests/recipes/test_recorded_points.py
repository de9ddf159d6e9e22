import csv
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.core.paths import REPOSITORY
from pipelines.recipes.record import RecordFiles, read_results
from pipelines.recipes.recorded_points import read_points
from pipelines.report.frontier_files import write_frontier
from pipelines.report.points import build_points
from pipelines.tracking.read import VARIANT_TAG
from tests.report.rows import row, sweep


def test_recorded_points_are_those_that_were_drawn(tmp_path: Path) -> None:
    rows = [*sweep(), row("dp_sgd", 0.7, epsilon=8.0, simulated="true", audited=0.0)]
    rows[-1].tags.update({VARIANT_TAG: "far", "overrides": "pipeline=dp_sgd seed=0 tracking.uri=sqlite:///a.db"})
    points = build_points(rows, {rows[-1].run_id: 1437}.get)
    table = write_frontier(points, tmp_path).table
    assert read_points(tmp_path) == [replace(point, settings=()) for point in points]
    assert write_frontier(read_points(tmp_path), tmp_path / "again").table == table
    assert "tracking" not in (tmp_path / "frontier.csv").read_text()


def test_a_record_older_than_a_column_reads_without_it(tmp_path: Path) -> None:
    rows = [row("dp_sgd", 0.7, epsilon=8.0), row("sgd", 0.9)]
    points = build_points(rows, {rows[0].run_id: 1437}.get)
    path = write_frontier(points, tmp_path).csv
    with path.open(newline="", encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    assert [record.pop("population") for record in records] == ["1437", ""]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    assert read_points(tmp_path) == [replace(point, settings=()) for point in build_points(rows)]


@pytest.mark.parametrize("recipe", ["digits_users", "adult_user_level"])
def test_records_over_users_are_of_the_pipeline_over_users(recipe: str) -> None:
    folder = REPOSITORY / "experiments" / recipe
    points = {point.pipeline for point in read_points(folder)}
    rows = {row.pipeline for row in read_results(RecordFiles.of(folder), 360 if recipe == "digits_users" else 16281)}
    assert points == rows == {"fed_avg", "dp_fed_avg", "dp_sgd_users"}


def test_no_record_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--record writes it"):
        read_points(tmp_path)
    (tmp_path / "frontier.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="is no frontier of this program"):
        read_points(tmp_path)
