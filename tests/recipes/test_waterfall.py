"""Recipes that ask where the accuracy goes: their stages are checked, drawn and recorded."""

from pathlib import Path

import pytest

from pipelines.recipes import reproduction as reproduce
from pipelines.recipes import rerun
from pipelines.recipes.drift import build_cells
from pipelines.recipes.recipe import read_recipe
from pipelines.recipes.record import RecordFiles, read_results
from pipelines.recipes.stages import build_waterfall, waterfall_table
from tests.recipes.test_reproduce import RECIPE, recipe_folder, run_here

STAGED = f"""\
{RECIPE}
waterfall:
  Digits: [{{label: central, pipeline: sgd}}, {{label: noised, pipeline: dp_sgd, epsilon: 3}}]
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pipeline: sgd}", "pipeline: sdg}", "waterfall.Digits.0.pipeline='sdg'"),
        ("label: central", "name: central", "waterfall.Digits.0.label="),
        ("epsilon: 3}", "epsilon: 0}", "waterfall.Digits.1.epsilon=0"),
        (", {label: noised, pipeline: dp_sgd, epsilon: 3}", "", "waterfall.Digits="),
        ("epsilon: 3}", "variant: far}", "stage 'noised' (dp_sgd, far, no target epsilon) is of no part"),
        ("pipeline: dp_sgd, epsilon: 3}", "pipeline: sgd}", "stage 'noised' (sgd, no target epsilon) is the same row"),
    ],
)
def test_wrong_stages_are_one_clear_line_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
) -> None:
    recipe_folder(tmp_path)
    assert STAGED.count(old) == 1
    (tmp_path / "recipe.yaml").write_text(STAGED.replace(old, new))
    assert reproduce.main([str(tmp_path), "--record"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_a_waterfall_is_recorded_and_drawn_again_on_comparison(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rerun, "run_process", run_here)
    (tmp_path / "recipe.yaml").write_text(STAGED)
    (tmp_path / "README.md").write_text("<!-- recorded -->\n<!-- end of recorded -->\n")
    assert reproduce.main([str(tmp_path), "--record"]) == 0
    assert (tmp_path / "waterfall.png").read_bytes().startswith(b"\x89PNG")
    cells = build_cells(read_results(RecordFiles.of(tmp_path), 360), "results.csv")
    table = waterfall_table(build_waterfall(read_recipe(tmp_path).waterfall, cells))
    assert table in (tmp_path / "README.md").read_text()
    assert "noised" in table
    capfd.readouterr()
    # Recorded and repeated runs have the same seeds, and their noise is the same by RECIPE.
    assert reproduce.main([str(tmp_path)]) == 0
    out = capfd.readouterr().out
    assert table in out
    assert f"reproduce-{tmp_path.name}/waterfall.png" in out
    assert reproduce.main([str(tmp_path), "--quick"]) == 0
    assert "waterfall.png" not in capfd.readouterr().out
