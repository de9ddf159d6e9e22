"""The figure of a recipe together with others: what --record draws, and what the committed one is drawn from."""

from pathlib import Path

import pytest

from pipelines.core.paths import REPOSITORY
from pipelines.frontier import main as frontier
from pipelines.recipes import reproduction as reproduce
from pipelines.recipes import rerun
from pipelines.recipes.recipe import read_recipe, recipe_names
from pipelines.recipes.recorded_points import read_points
from pipelines.report.frontier_files import write_frontier
from pipelines.report.panels import build_frontier
from pipelines.report.points import build_points
from tests.conftest import run_here
from tests.report.rows import row

RECIPE = """\
sweep: [pipeline=dp_sgd, privacy.noise_multiplier=1, pipeline.epochs=1, evaluations=1]
record: ["seed=0,1"]
check: ["seed=0"]
quick: ["seed=0"]
bands: {confidence: 0.999, test_examples: 360}
beside: [by_user]
"""
EXPERIMENTS = REPOSITORY / "experiments"
TOGETHER = [name for name in recipe_names() if read_recipe(EXPERIMENTS / name).beside]


@pytest.fixture(autouse=True)
def _quiet_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command line that was called in this process leaves Hydra's tracebacks on."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.delenv("HYDRA_FULL_ERROR")


def test_record_draws_its_own_points_together_with_those_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rerun, "run_process", run_here)
    own, other = tmp_path / "by_example", tmp_path / "by_user"
    own.mkdir()
    (own / "recipe.yaml").write_text(RECIPE)
    write_frontier(build_points([row("dp_fed_avg", 0.8, epsilon=2.0, unit="user")]), other)
    monkeypatch.chdir(own)
    assert reproduce.main([".", "--record"]) == 0
    (point,) = read_points(own)
    assert point.privacy is not None
    assert point.privacy.population == 1437, "as the guarantee of the runs has it"
    assert frontier(["--recipe", str(other), str(own), "--output", str(tmp_path / "again")]) == 0
    assert (own / "both_units.png").read_bytes() == (tmp_path / "again" / "frontier.png").read_bytes()
    assert (own / "both_units.png").read_bytes() != (own / "frontier.png").read_bytes()


def test_a_missing_sibling_record_is_named_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    assert reproduce.main([str(tmp_path), "--record"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "by_user does not exist" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", TOGETHER)
def test_committed_records_that_are_drawn_together_are_there(name: str) -> None:
    names = [*read_recipe(EXPERIMENTS / name).beside, name]
    assert set(names) <= set(recipe_names())
    panels = build_frontier([point for one in names for point in read_points(EXPERIMENTS / one)]).panels
    assert [panel.unit for panel in panels] == ["example", "user"]
    assert (EXPERIMENTS / name / "both_units.png").read_bytes().startswith(b"\x89PNG")
