"""Sweeps: one parent, distinct children, a frontier."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.privacy.rounding import rounded_up
from pipelines.runs import execute as execution
from pipelines.runs import prepare as job
from pipelines.runs.sweep import count_distinct
from pipelines.tracking.store import open_store
from tests.conftest import Cli


def test_a_sweep_has_one_child_a_distinct_configuration(cli: Cli, tmp_path: Path) -> None:
    done = cli("-m", "pipeline=sgd,dp_sgd", "privacy.epsilon=1,3", "seed=0,1", "pipeline.epochs=2", "evaluations=2")
    assert done.code == 0, done.err
    store = open_store(done.uri, done.experiment)
    runs = store.client.search_runs([store.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    # Two of sgd (one a seed, not one an epsilon), four of dp_sgd.
    assert sorted(run.data.tags["pipeline"] for run in children) == ["dp_sgd"] * 4 + ["sgd"] * 2
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {item.path for item in store.client.list_artifacts(parent.info.run_id, "frontier")} == {
        "frontier/frontier.csv", "frontier/frontier.png", "frontier/frontier.html",
    }  # fmt: skip
    assert {"choosing.md", "choosing.json"} <= {item.path for item in store.client.list_artifacts(parent.info.run_id)}
    found = parent.data.metrics
    single = max(run.data.metrics.get("privacy/epsilon", 0) for run in children)
    assert single < found["privacy/epsilon_publish_all"]
    assert "4 runs that protect examples" in parent.data.tags["mlflow.note.content"]
    assert f"costs epsilon {rounded_up(found['privacy/epsilon_publish_all'])}" in done.out
    assert "Example-level privacy" in done.out
    assert f"mlflow ui --backend-store-uri {done.uri}" in done.out
    assert "[6/6]" in done.out


def test_a_sweep_over_seeds_bounds_only_unchanging_users(cli: Cli) -> None:
    sweep = (
        "-m", "pipeline=dp_sgd_users", "privacy.noise_multiplier=2", "seed=0,1", "pipeline.epochs=1", "evaluations=1",
    )  # fmt: skip
    fixed, anew = cli(*sweep, "partition.seed=0", experiment="fixed"), cli(*sweep, experiment="anew")
    assert (fixed.code, anew.code) == (0, 0), fixed.err + anew.err
    for done, users in ((fixed, 1), (anew, 2)):
        (parent,) = [row for row in done.rows if "mlflow.parentRunId" not in row.tags]
        children = [row for row in done.rows if row is not parent and "pipeline" in row.tags]
        assert len(children) == 2
        assert len({row.tags["partition.sha256"] for row in children}) == users
        assert ("privacy/epsilon_publish_all" in parent.metrics) is (users == 1)
        for text in (done.out, parent.tags["mlflow.note.content"]):
            (line,) = [line for line in text.splitlines() if "2 runs that protect users" in line]
            assert ("epsilon" in line) is (users == 1)
            assert ("partition.seed" in line) is (users == 2)


def test_a_failed_job_fails_the_sweep_but_not_the_others(cli: Cli) -> None:
    done = cli(
        "-m", "pipeline=sgd", "pipeline.epochs=1", "seed=0,1", "pipeline.batch_size=64,128", "dataset.limit=100,9999"
    )
    assert done.code == 1
    assert done.err.count("dataset.limit=9999") >= 1
    assert "Traceback" not in done.err
    store = open_store(done.uri, done.experiment)
    runs = store.client.search_runs([store.experiment_id])
    statuses = sorted(run.info.status for run in runs)
    assert statuses == ["FAILED"] + ["FINISHED"] * 4


def test_parallel_jobs_share_the_sweep_and_the_cores(cli: Cli) -> None:
    done = cli(
        "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "pipeline=dp_sgd", "privacy.epsilon=1,3",
        "pipeline.epochs=2",
    )  # fmt: skip
    assert done.code == 0, done.err
    rows = [row for row in done.rows if "pipeline" in row.tags]
    assert [row.status for row in rows] == ["FINISHED"] * 2
    assert len({row.tags["engine.threads"] for row in rows}) == 1
    # Each of the two processes had one of two runs: neither may call its own the first.
    assert sorted(re.findall(r"\[(\d)/2\]", done.out)) == ["1", "2"]


def test_runs_are_counted_across_processes(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pipelines.runs.sweep import Sweep; "
        "sweep = Sweep(folder=Path(sys.argv[1]), parent_id='', uri='', experiment='', runs=1, began=0); "
        "print(*[sweep.count_done() for _ in range(300)])"
    )
    counting = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    counts = [int(number) for process in counting for number in process.communicate(timeout=60)[0].split()]
    assert sorted(counts) == list(range(1, 601))


@pytest.mark.parametrize("sweep", [False, True])
def test_an_interruption_before_any_run_claims_none(cli: Cli, sweep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "load_dataset", interrupted)
    done = cli(*(["-m", "seed=0,1"] if sweep else []), "pipeline=sgd")
    assert done.code == 130
    statuses = [row.status for row in done.rows]
    if sweep:
        assert "interrupted" in done.err
        assert "KILLED" in done.err
        assert statuses == ["KILLED"]  # the parent's
    else:
        assert done.err.startswith("interrupted: ")
        assert "KILLED" not in done.err
        assert done.err.count("\n") == 1
        assert statuses == []


def test_an_interruption_during_a_run_says_that_it_is_killed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(execution, "_training_data", interrupted)
    done = cli("pipeline=sgd")
    assert done.err.startswith(f"interrupted: run {done.row.run_id} is marked KILLED")
    assert done.err.count("\n") == 1
    assert done.row.status == "KILLED"


def test_an_unreachable_server_stops_a_sweep_before_its_first_job(cli: Cli) -> None:
    done = cli("-m", "seed=0,1", "tracking.uri=http://127.0.0.1:9")
    assert done.code == 1
    assert done.out == ""


@pytest.mark.parametrize(
    ("swept", "default", "runs"),
    [
        ({"pipeline": ["sgd", "dp_sgd"], "privacy.epsilon": ["1", "3"], "seed": ["0", "1"]}, "sgd", 6),
        ({"privacy.epsilon": ["1", "3"]}, "dp_sgd", 2),
        ({"privacy.epsilon": ["1", "3"]}, "sgd", 1),
        ({"pipeline": ["fed_avg", "dp_fed_avg", "dp_sgd_users"], "privacy.epsilon": ["1", "3"]}, "sgd", 5),
        ({}, "sgd", 1),
    ],
)
def test_the_number_of_runs_counts_each_configuration_once(
    swept: dict[str, list[str]], default: str, runs: int
) -> None:
    assert count_distinct(swept, default=default) == runs
