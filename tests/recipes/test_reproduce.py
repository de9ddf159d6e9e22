"""Recipes: their files, and a small one recorded and re-run for real."""

import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.core.paths import REPOSITORY
from pipelines.recipes import reproduction as reproduce
from pipelines.recipes import rerun
from pipelines.recipes.drift import build_cells
from pipelines.recipes.recipe import Sweeps, read_recipe
from pipelines.recipes.record import Origin, RecordFiles, read_origin, read_results, write_results
from pipelines.recipes.record_readme import markdown_table, published_table
from pipelines.recipes.recorded_points import read_points
from pipelines.recipes.reproduction import QUICK_SEEDS
from pipelines.recipes.stages import build_waterfall, waterfall_table
from pipelines.report.panels import build_frontier
from pipelines.report.published_results import read_published
from tests.conftest import run_here
from tests.recipes.results import row

RECIPES = sorted(path.parent for path in (REPOSITORY / "experiments").glob("*/record.json"))
ORIGINS = sorted(path for name in ("record", "quick") for path in (REPOSITORY / "experiments").glob(f"*/{name}.json"))
# Of two seeds the spread may be nil by chance, so the noise is the same in every run.
RECIPE = """\
sweep: ["pipeline=sgd,dp_sgd", privacy.epsilon=3, privacy.noise_seed=0, pipeline.epochs=4, evaluations=1]
record: ["seed=0,1"]
check: ["seed=0,1"]
quick: ["seed=0"]
bands: {confidence: 0.999, test_examples: 360}
"""


# One line of epsilons whose lengths differ, a variant with a line of its own, and a quick form that no full one has.
PARTS = """\
sweep: [privacy.noise_seed=0, evaluations=1]
parts:
  - sweep: [pipeline=dp_sgd, privacy.epsilon=3, pipeline.epochs=4]
  - sweep: [pipeline=dp_sgd, privacy.epsilon=1, pipeline.epochs=2]
  - {variant: small batches, sweep: [pipeline=dp_sgd, privacy.epsilon=3, pipeline.epochs=1, pipeline.batch_size=300]}
record: ["seed=0,1"]
check: ["seed=0"]
quick:
  sweep: [pipeline=sgd, pipeline.epochs=1, evaluations=1]
  record: ["seed=0,1,2,3,4,5,6,7,8,9"]
  check: ["seed=0"]
bands: {confidence: 0.999, test_examples: 360}
"""
PUBLISHED = """\
points:
  - {source: A 2020, method: linear, url: "https://a.b", unit: example, note: n, epsilon: 2, delta: 1.0e-6, accuracy: 1}
"""


def origin() -> Origin:
    return Origin(
        command="c", commit="0" * 40, lock_sha256="a", data_sha256="b", seeds=(0, 1), versions={"numpy": "1"},
        platform="p",
    )  # fmt: skip


def recipe_folder(folder: Path) -> Path:
    (folder / "recipe.yaml").write_text(RECIPE)
    rows = [row(k / 360, seed=seed) for seed, k in enumerate((300, 301))]
    plain = [row(k / 360, seed=seed, pipeline="sgd", epsilon=None) for seed, k in enumerate((340, 340))]
    write_results(RecordFiles.of(folder), [*rows, *plain], origin())
    return folder


def test_a_record_reads_back_exactly(tmp_path: Path) -> None:
    folder = recipe_folder(tmp_path)
    rows = read_results(RecordFiles.of(folder), 360)
    assert [(r.pipeline, r.epsilon, r.seed, r.accuracy) for r in rows] == [
        ("dp_sgd", 0.998, 0, 300 / 360), ("dp_sgd", 0.998, 1, 301 / 360), ("sgd", None, 0, 340 / 360),
        ("sgd", None, 1, 340 / 360),
    ]  # fmt: skip
    assert read_origin(RecordFiles.of(folder)) == origin()


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("recipe.yaml", None, None, "recipe.yaml does not exist; the recipes are: adult_example_level, "),
        ("recipe.yaml", "bands:", "bands: [", "recipe.yaml is no YAML"),
        ("recipe.yaml", "quick:", "quickly:", "recipe.yaml: quick="),
        ("recipe.yaml", "0.999", "1.5", "bands.confidence=1.5: Input should be less than 1"),
        ("recipe.yaml", "360}", "7}", "is no multiple of 1 / bands.test_examples=7"),
        ("results.csv", None, None, "results.csv cannot be read"),
        ("results.csv", "0.998", "nan", "results.csv line 2: epsilon='nan'"),
        ("results.csv", "0.998", "", "results.csv line 2: content="),
        ("results.csv", "0.8333333333333334", "83", "results.csv line 2: accuracy='83'"),
        ("results.csv", "steps", "stairs", "results.csv line 2: steps="),
        ("results.csv", "sgd,,,,,,,", "sgd,,,", "results.csv line 4: "),
        ("record.json", None, None, "record.json cannot be read"),
        ("record.json", "}", "", "record.json is no JSON"),
    ],
)
def test_a_bad_folder_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, old: str | None, new: str, message: str
) -> None:
    path = recipe_folder(tmp_path) / file
    if old is None:
        path.unlink()
    else:
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))
    assert reproduce.main([str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.fixture(autouse=True)
def _quiet_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command line that was called in this process leaves Hydra's tracebacks on, which a child would inherit."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.delenv("HYDRA_FULL_ERROR")


def test_a_recipe_is_recorded_reproduced_and_caught_when_changed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "README.md").write_text("before\n<!-- recorded -->\nold\n<!-- end of recorded -->\nafter\n")
    uri = f"sqlite:///{tmp_path}/runs.db"
    assert reproduce.main([str(tmp_path), "--record", "--uri", uri]) == 0
    rows = read_results(RecordFiles.of(tmp_path), 360)
    # 4 epochs of 1437 in samples of 719 are 8 steps; of sgd, in batches of 64, 4 * 23.
    assert [(r.pipeline, r.target_epsilon, r.steps, r.seed) for r in rows] == [
        ("dp_sgd", 3.0, 8, 0), ("dp_sgd", 3.0, 8, 1), ("sgd", None, 92, 0), ("sgd", None, 92, 1),
    ]  # fmt: skip
    assert rows[0].epsilon is not None
    assert 2.9 < rows[0].epsilon <= 3
    record = read_origin(RecordFiles.of(tmp_path))
    assert record.seeds == (0, 1)
    assert "torch" in record.versions
    assert str(tmp_path) not in (tmp_path / "results.csv").read_text() + (tmp_path / "record.json").read_text()
    assert (tmp_path / "frontier.png").stat().st_size > 0
    readme = (tmp_path / "README.md").read_text()
    assert readme.startswith("before\n")
    assert "| sgd " in readme
    assert "old" not in readme

    monkeypatch.setattr(rerun, "run_process", run_here)
    # The store still holds the first sweep; a comparison sees its own runs only.
    assert reproduce.main([str(tmp_path), "--quick", "--uri", uri]) == 0
    assert "reproduced: all 2 rows" in capfd.readouterr().out
    path = tmp_path / "results.csv"
    path.write_text(path.read_text().replace(str(rows[0].epsilon), str(rows[0].epsilon + 1e-5)))
    assert reproduce.main([str(tmp_path), "--quick"]) == 1
    out, err = capfd.readouterr()
    assert "DRIFTED: epsilon" in out
    assert err.endswith(f"DRIFTED: 1 of 2 rows of {tmp_path.name}\n")


def test_parts_make_one_record_and_quick_has_its_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rerun, "run_process", run_here)
    (tmp_path / "recipe.yaml").write_text(PARTS)
    (tmp_path / "published.yaml").write_text(PUBLISHED)
    (tmp_path / "README.md").write_text("<!-- recorded -->\n<!-- end of recorded -->\n")
    assert reproduce.main([str(tmp_path), "--record"]) == 0
    rows = read_results(RecordFiles.of(tmp_path), 360)
    # Steps of samples of 719, but for the variant: 1437 / 300 rounds up to 5.
    assert [(r.variant, r.target_epsilon, r.steps, r.seed) for r in rows] == [
        (None, 1.0, 4, 0), (None, 1.0, 4, 1), (None, 3.0, 8, 0), (None, 3.0, 8, 1), ("small batches", 3.0, 5, 0),
        ("small batches", 3.0, 5, 1),
    ]  # fmt: skip
    readme = (tmp_path / "README.md").read_text()
    assert "| small batches |" in readme
    assert "[A 2020, linear](https://a.b)" in readme
    assert read_origin(RecordFiles.of(tmp_path)).command.count("\n") == 2
    lines = build_frontier(read_points(tmp_path)).panels[0].lines
    assert [(line.label, len(line.points)) for line in lines] == [("dp_sgd", 2), ("dp_sgd, small batches", 1)]
    assert "tracking" not in (tmp_path / "frontier.csv").read_text()

    whole = (tmp_path / "results.csv").read_bytes()
    assert reproduce.main([str(tmp_path), "--quick"]) == 1
    assert "quick.csv cannot be read" in capfd.readouterr().err.replace("quick.json", "quick.csv")
    assert reproduce.main([str(tmp_path), "--quick", "--record"]) == 0
    quick = read_results(RecordFiles.of(tmp_path, quick=True), 360)
    assert [(r.pipeline, r.steps, r.seed) for r in quick] == [("sgd", 23, seed) for seed in range(10)]
    assert (tmp_path / "results.csv").read_bytes() == whole
    assert reproduce.main([str(tmp_path), "--quick"]) == 0
    assert "of 10 seeds" in capfd.readouterr().out
    # One folder that fails does not keep the next from its turn.
    assert reproduce.main([str(tmp_path / "none"), str(tmp_path)]) == 1
    out, err = capfd.readouterr()
    assert err.startswith("error: ")
    assert re.search(r"reproduced: all 3 rows of .*\n\S+ took 0:\d\d:\d\d\n", out)
    assert "□1 A 2020, linear" in out


def test_a_quick_record_needs_ten_seeds_and_own_sweeps(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rerun, "run_process", run_here)
    (tmp_path / "recipe.yaml").write_text(PARTS.replace("seed=0,1,2,3,4,5,6,7,8,9", "seed=0,1"))
    assert reproduce.main([str(tmp_path), "--quick", "--record"]) == 1
    assert "the record of sgd has 2 seeds; its band needs at least 10" in capfd.readouterr().err
    assert not (tmp_path / "quick.csv").exists()
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    assert reproduce.main([str(tmp_path), "--quick", "--record"]) == 1
    assert "use --record alone" in capfd.readouterr().err


def test_a_failing_sweep_is_a_failure_without_a_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe_folder(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("pipeline.epochs=4", "pipeline.epoch=4"))
    assert reproduce.main([str(tmp_path)]) == 1
    err = capfd.readouterr().err
    assert "error: the sweep ended with exit code 1 after 0 runs" in err
    assert "Traceback" not in err
    assert read_results(RecordFiles.of(tmp_path), 360)


def test_an_interrupted_comparison_leaves_no_run_open(tmp_path: Path) -> None:
    recipe_folder(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("epochs=4", "epochs=100000"))
    uri = f"sqlite:///{tmp_path}/runs.db"
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.reproduce", str(tmp_path), "--uri", uri],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    try:
        wait_for_run(tmp_path / "runs.db", process)
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    with sqlite3.connect(tmp_path / "runs.db") as connection:
        assert {status for (status,) in connection.execute("select status from runs")} == {"KILLED"}


def wait_for_run(database: Path, process: "subprocess.Popen[str]") -> None:
    """Until the sweep has opened a run below its parent."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        if database.exists():
            with sqlite3.connect(database, timeout=10) as connection:
                tables = connection.execute("select count(*) from sqlite_master where name = 'runs'").fetchone()[0]
                if tables and connection.execute("select count(*) from runs").fetchone()[0] >= 2:
                    return
        time.sleep(0.2)
    raise AssertionError("no run was opened")


@pytest.mark.parametrize("folder", RECIPES, ids=lambda folder: folder.name)
def test_every_committed_record_is_whole_and_its_readme_shows_it(folder: Path) -> None:
    recipe = read_recipe(folder)
    cells = build_cells(read_results(RecordFiles.of(folder), recipe.bands.test_examples), "results.csv")
    # What --quick compares with has ten seeds or more; the slower recipes have such a record for it alone.
    own = isinstance(recipe.quick, Sweeps)
    assert all(len(cell.seeds) >= (3 if own else QUICK_SEEDS) for cell in cells.values())
    if own:
        quick = read_results(RecordFiles.of(folder, quick=True), recipe.bands.test_examples)
        assert all(len(cell.seeds) >= QUICK_SEEDS for cell in build_cells(quick, "quick.csv").values())
    assert "/" not in (folder / "results.csv").read_text()
    readme = (folder / "README.md").read_text()
    assert markdown_table(cells) in readme
    if published := read_published(folder):
        assert published_table(published) in readme
    figure = "waterfall.png" if recipe.waterfall else "frontier.png"
    assert f"]({figure})" in readme
    assert (folder / figure).read_bytes().startswith(b"\x89PNG")
    if recipe.waterfall:
        assert waterfall_table(build_waterfall(recipe.waterfall, cells)) in readme


@pytest.mark.parametrize("path", ORIGINS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_committed_record_is_of_a_commit_without_changes(path: Path) -> None:
    origin = read_origin(RecordFiles.of(path.parent, quick=path.name == "quick.json"))
    assert re.fullmatch("[0-9a-f]{40}", origin.commit), "commit, then record again"


def test_help_imports_little() -> None:
    code = (
        "import sys, json; from pipelines.recipes.reproduction import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(json.dumps(sorted({'torch', 'tensorflow', 'mlflow', 'numpy', 'pydantic'} & set(sys.modules))))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(out.splitlines()[-1]) == []
    assert "--quick" in out
