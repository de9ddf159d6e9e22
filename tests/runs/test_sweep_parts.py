"""A sweep has its parent, its frontier and its joint epsilon, or it does not exit with 0."""

import getpass
import os
import shutil
import tempfile
from pathlib import Path

import matplotlib.figure
import pytest
from hydra import initialize_config_dir

from pipelines.engines.interface import TrainingData
from pipelines.report.publish import publish
from pipelines.runs import execute as execution
from pipelines.runs import sweep_cost
from pipelines.runs.execute import Job
from pipelines.runs.launch import CONF
from pipelines.runs.sweep import Sweep, _swept
from pipelines.tracking import parent_run as parent
from pipelines.tracking.mlflow_run import MlflowRun
from pipelines.tracking.read import RunRow, read_rows
from pipelines.tracking.store import open_store
from tests.conftest import Cli, Outcome, start

TWO = ("-m", "pipeline=sgd", "seed=0,1", "pipeline.epochs=1", "evaluations=1")
PRIVATE = ("-m", "pipeline=dp_sgd", "privacy.noise_multiplier=5,6", "pipeline.epochs=1", "evaluations=1")


def parent_of(done: Outcome) -> RunRow:
    (found,) = [row for row in done.rows if row.tags.get("kind") == "sweep"]
    return found


def artifacts(done: Outcome, run_id: str, folder: str | None = None) -> set[str]:
    client = open_store(done.uri, done.experiment).client
    return {item.path.rpartition("/")[2] for item in client.list_artifacts(run_id, folder)}


@pytest.mark.parametrize(
    ("swept", "values"),
    [
        ("seed=0,1,2", ["0", "1", "2"]),
        ("seed=range(0,3)", ["0", "1", "2"]),
        ("seed=choice(5,7)", ["5", "7"]),
        ("privacy=glob(*,exclude=[banded,tree])", ["adaptive", "fixed"]),
        ("privacy=glob([f*,a*])", ["adaptive", "fixed"]),
    ],
)
@pytest.mark.parametrize("preset", [False, True])
def test_every_form_of_a_sweep_is_counted(swept: str, values: list[str], preset: bool) -> None:
    key, _, text = swept.partition("=")
    with initialize_config_dir(CONF, version_base="1.3"):
        found = _swept([], {key: text}) if preset else _swept([swept], {key: "9,8"})
    assert {name: sorted(items) for name, items in found.items()} == {key: values}


def test_a_forced_key_is_counted_by_its_name() -> None:
    with initialize_config_dir(CONF, version_base="1.3"):
        assert _swept(["++privacy.unit=user,example"], {}) == {"privacy.unit": ["user", "example"]}


def test_a_glob_sweep_has_a_parent_and_a_joint_epsilon(cli: Cli) -> None:
    done = cli(
        "-m", "privacy=glob(*,exclude=[banded,tree])", "pipeline=dp_sgd", "privacy.noise_multiplier=5",
        "pipeline.epochs=1", "evaluations=1",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert parent_of(done).metrics["privacy/epsilon_publish_all"] > 0
    assert len(done.rows) == 3


@pytest.mark.parametrize("broken", ["parent", "folder"])
def test_whatever_is_raised_while_a_sweep_opens_ends_it(cli: Cli, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(*((parent, "start_sweep") if broken == "parent" else (tempfile, "mkdtemp")), fail)
    done = cli(*TWO)
    monkeypatch.undo()
    assert (done.code, done.out) == (1, "")
    assert done.err.strip() == "error: no such thing"
    assert done.rows == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seed=interval(0,1)"], r"interval\(0,1\)"),
        (["seed=0,1", "~hydra.callbacks.open_sweep"], "parent run"),
    ],
)
def test_a_sweep_that_cannot_have_a_parent_does_not_train(cli: Cli, overrides: list[str], message: str) -> None:
    done = cli("-m", "pipeline=sgd", *overrides)
    assert done.code == 1
    assert done.rows == []
    assert message.replace("\\", "") in done.err


def test_a_sweep_without_joint_epsilon_fails_keeping_its_frontier(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("not a number")

    monkeypatch.setattr(sweep_cost, "choosing_costs", fail)
    done = cli(*PRIVATE)
    assert done.code == 1
    assert "no joint epsilon: ValueError: not a number" in done.err
    row = parent_of(done)
    assert row.status == "FAILED"
    assert "joint epsilon" in row.tags["error"]
    assert artifacts(done, row.run_id, "frontier") == {"frontier.csv", "frontier.html", "frontier.png"}


def test_an_unwritable_checkout_leaves_the_frontier_in_the_parent(
    cli: Cli, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done = cli(*TWO)
    row, store = parent_of(done), open_store(done.uri, done.experiment)
    (tmp_path / "outputs").touch()
    publish(store, row.run_id, tmp_path / "outputs" / "digits")
    told = capfd.readouterr()
    assert f"{tmp_path}/outputs/digits is not writable" in told.err
    assert row.run_id in told.err
    assert "frontier.csv" not in told.out
    assert "frontier.csv" in artifacts(done, row.run_id, "frontier")


def test_a_figure_that_cannot_be_drawn_fails_nothing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no fonts")

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", fail)
    done = cli(*TWO, "audit=membership")
    assert done.code == 0, done.err
    row = parent_of(done)
    assert row.status == "FINISHED"
    assert artifacts(done, row.run_id, "frontier") == {"frontier.csv", "frontier.html"}
    assert artifacts(done, row.run_id, "membership") == {"membership.csv"}
    assert done.err.count("no fonts") == done.err.count("\n") == 4


def test_a_vanishing_folder_fails_the_sweep_keeping_its_runs(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = execution._training_data

    def vanish(job: Job) -> TrainingData:
        sweep = Sweep.current()
        assert sweep is not None
        shutil.rmtree(sweep.folder)
        return prepare(job)

    monkeypatch.setattr(execution, "_training_data", vanish)
    done = cli(*TWO)
    assert done.code == 1
    assert "Traceback" not in done.err
    assert "folder" in done.err
    row = parent_of(done)
    assert row.status == "FAILED"
    assert "frontier.csv" in artifacts(done, row.run_id, "frontier")


def test_an_unexpected_exception_fails_its_run_alone(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = execution._training_data

    def fail(job: Job) -> TrainingData:
        if job.config.seed == 0:
            raise RuntimeError("out of luck")
        return prepare(job)

    monkeypatch.setattr(execution, "_training_data", fail)
    done = cli(*TWO)
    assert done.code == 1
    assert done.err.count("\n") < 20
    assert "RuntimeError: out of luck; run" in done.err
    assert sorted(row.status for row in done.rows) == ["FAILED", "FAILED", "FINISHED"]


@pytest.mark.parametrize("part", ["confusion_page", "on_model"])
def test_a_finished_run_does_without_a_decoration(cli: Cli, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise RuntimeError("no ink")

    place = execution if part == "confusion_page" else MlflowRun
    monkeypatch.setattr(place, part, fail)
    done = cli("pipeline=dp_sgd", "privacy.epsilon=3", "pipeline.epochs=1", "evaluations=1", "tracking.log_model=true")
    assert done.code == 0
    assert done.err.count("no ink") == done.err.count("\n") == 1
    assert done.row.status == "FINISHED"
    assert {"privacy.json", "result.json"} <= artifacts(done, done.row.run_id)


def test_a_sweep_with_a_closed_output_is_interrupted(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    with start("-m", "pipeline=sgd", "pipeline.epochs=1", "seed=0,1,2,3,4,5,6,7", uri=uri) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "accuracy" in process.stdout.readline()
        process.stdout.close()  # as `head -1` does
        err = process.stderr.read()
    assert process.returncode == 130
    assert "interrupted: the sweep is marked KILLED" in err
    assert "Traceback" not in err
    store = open_store(uri, "tests")
    (parent,) = store.client.search_runs([store.experiment_id], "tags.`mlflow.runName` LIKE 'sweep%'")
    assert parent.info.status == "KILLED"
    assert 1 <= len(read_rows(store, parent_id=parent.info.run_id)) < 8


def test_cleaning_follows_no_link_in_the_temporary_folder(tmp_path: Path) -> None:
    temporary, precious = tmp_path / "tmp", tmp_path / "precious"
    temporary.mkdir()
    precious.mkdir()
    (precious / "multirun.yaml").write_text("mine")
    for name in {"user", getpass.getuser(), os.environ.get("USER", "user")}:
        (temporary / f"privacy-pipelines-{name}").symlink_to(precious)
    links = set(temporary.iterdir())
    with start(
        "-m", "pipeline=sgd", "seed=0,1", "pipeline.epochs=1", "evaluations=1", "tracking.log_model=false",
        uri=f"sqlite:///{tmp_path / 'runs.db'}", env=os.environ | {"TMPDIR": str(temporary)}, cwd=tmp_path,
    ) as process:  # fmt: skip
        _, err = process.communicate(timeout=200)
    assert (process.returncode, err) == (0, "")
    assert (precious / "multirun.yaml").read_text() == "mine"
    left = {path for path in temporary.iterdir() if path.name.startswith("privacy-pipelines")}
    assert left == links
