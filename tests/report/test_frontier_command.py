"""The frontier command draws recorded runs and recorded recipes."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.core.paths import REPOSITORY
from pipelines.frontier import main
from pipelines.recipes.recorded_points import read_points
from pipelines.report.frontier_files import write_frontier
from pipelines.report.points import build_points
from pipelines.report.publish import publish
from pipelines.tracking.listeners import open_run
from pipelines.tracking.parent_run import finish_sweep, start_sweep
from pipelines.tracking.run_log import RunStart
from pipelines.tracking.store import Store, open_store
from tests.report.rows import sweep


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}", "digits")


@pytest.fixture(scope="module")
def parent_id(store: Store) -> str:
    """A finished sweep of all four pipelines."""
    parent_id = start_sweep(store, name="sweep", note="", tags={})
    for row in sweep():
        with open_run(store, RunStart(name="a", tags=row.tags, params=row.params, parent_id=parent_id)) as log:
            log.on_metrics(10, row.metrics)
            if row.tags["pipeline"] == "dp_sgd":
                log.on_artifact("privacy.json", {"population": 1437})
    finish_sweep(store, parent_id)
    return parent_id


def test_command_prints_the_table_and_the_paths(
    store: Store, parent_id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--uri", store.uri, "--parent", parent_id, "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "Example-level privacy" in out
    for name in ("frontier.csv", "frontier.png", "frontier.html"):
        assert str(tmp_path / name) in out
        assert (tmp_path / name).stat().st_size > 0


def test_whole_experiment_leaves_the_parent_run_out(store: Store, parent_id: str, tmp_path: Path) -> None:
    assert main(["--uri", store.uri, "--output", str(tmp_path)]) == 0
    assert len((tmp_path / "frontier.csv").read_text().splitlines()) == 9
    assert parent_id not in (tmp_path / "frontier.csv").read_text()


def test_population_is_read_from_the_guarantee(store: Store, parent_id: str, tmp_path: Path) -> None:
    publish(store, parent_id, tmp_path)
    found = {(p.pipeline, p.privacy.population) for p in read_points(tmp_path) if p.privacy is not None}
    assert found == {("dp_sgd", 1437), ("dp_fed_avg", None)}


def test_sweep_carries_its_frontier(store: Store, parent_id: str, tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("not of this sweep")
    publish(store, parent_id, tmp_path)
    names = {item.path for item in store.client.list_artifacts(parent_id, "frontier")}
    assert names == {"frontier/frontier.csv", "frontier/frontier.png", "frontier/frontier.html"}


def test_records_of_several_recipes_are_drawn_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example, user = tmp_path / "example", tmp_path / "user"
    points = build_points(sweep())
    write_frontier([point for point in points if point.pipeline in ("sgd", "dp_sgd")], example)
    write_frontier([point for point in points if point.pipeline in ("fed_avg", "dp_fed_avg")], user)
    (user / "published.yaml").write_text(
        'points: [{source: A 2020, method: m, url: "https://a.b", unit: user, epsilon: 3, delta: 1.0e-5, '
        "accuracy: 0.9, note: n}]"
    )
    assert main(["--recipe", str(example), str(user), "--output", str(tmp_path / "both")]) == 0
    out = capsys.readouterr().out
    assert "Example-level privacy" in out
    assert "□1 A 2020, m" in out.partition("User-level privacy")[2]
    assert main(["--recipe", str(tmp_path)]) == 1
    assert "frontier.csv cannot be read" in capsys.readouterr().err


def test_no_runs_is_one_clear_line(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_store(store.uri, "empty")
    assert main(["--uri", store.uri, "--experiment", "empty", "--output", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: no finished runs")
    assert main(["--uri", f"sqlite:///{tmp_path}/none.db"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_help_imports_little() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pipelines.frontier", "--help"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "--parent" in done.stdout
    assert not {"mlflow", "numpy", "plotly"} & {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


def test_an_unknown_recipe_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--recipe", "experiments/digits_frontie"]) == 1
    assert "experiments/digits_frontie does not exist; the recipes are: adult_example_level" in capsys.readouterr().err
