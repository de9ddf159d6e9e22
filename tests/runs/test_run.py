"""Runs as their users see them: what is logged, and what a mistake or a signal leaves behind."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import psutil
import pytest
import yaml

from pipelines.data.digits import load_digits
from pipelines.privacy.rounding import rounded_up
from pipelines.runs.result import RunResult
from pipelines.tracking.listeners import open_run
from pipelines.tracking.orphans import close_orphans
from pipelines.tracking.run_log import RunStart
from pipelines.tracking.store import open_store
from tests.conftest import Cli, start

QUICK = ("pipeline.epochs=2", "evaluations=3")


def artifact(uri: str, run_id: str, name: str, folder: Path) -> Path:
    return Path(
        mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=name, tracking_uri=uri, dst_path=str(folder))
    )


def test_a_private_run_logs_the_whole_contract(cli: Cli, tmp_path: Path) -> None:
    done = cli("pipeline=dp_sgd", "privacy.epsilon=3", *QUICK)
    assert done.code == 0
    assert done.out.startswith("dp_sgd eps=3 seed=0")
    row = done.row
    assert (row.name, row.status) == ("dp_sgd eps=3 seed=0", "FINISHED")
    expected = {
        "pipeline": "dp_sgd", "dataset": "digits", "model": "linear", "seed": "0", "privacy.unit": "example",
        "privacy.relation": "add_or_remove_one", "privacy.delta": "1e-05", "privacy.simulated": "false",
        "privacy.accountant": "dp-accounting PLD 0.4.3", "privacy.sampler": "poisson",
    }  # fmt: skip
    assert {key: row.tags[key] for key in expected} == expected
    for key in ("data.sha256", "config.sha256", "mlflow.source.git.commit"):
        assert len(row.tags[key]) >= 40
    # Who took part, and how many, is not covered by epsilon.
    told = {key for key in (*row.metrics, *row.tags, *row.params) if "sampl" in key}
    assert told == {"privacy/sampler_p_value", "privacy.sampler", "pipeline.grad_sample", "engine.grad_sample"}
    note = row.tags["mlflow.note.content"]
    for said in ("e^3", "1e-05", "1,437"):
        assert said in note
    assert row.params["pipeline.epochs"] == "2.0"
    assert row.params["privacy.noise_multiplier"] == "null"
    assert set(row.metrics) == {
        "test/accuracy", "test/loss", "test/majority", "privacy/epsilon", "privacy/sampler_p_value", "time/train_s",
        "time/examples_per_s",
    }  # fmt: skip

    client = open_store(done.uri, done.experiment).client
    steps = [
        [metric.step for metric in client.get_metric_history(row.run_id, key)]
        for key in ("test/accuracy", "test/loss", "privacy/epsilon")
    ]
    # 2 epochs of 1437 in samples of 719: round(3.997) = 4 steps, evaluated three times, the last included.
    assert steps == [[2, 3, 4]] * 3
    spent = [metric.value for metric in client.get_metric_history(row.run_id, "privacy/epsilon")]
    assert spent == sorted(spent)
    assert spent[-1] <= 3

    names = {item.path for item in client.list_artifacts(row.run_id)}
    assert names == {
        "config.yaml", "overrides.yaml", "privacy.json", "privacy_statement.md", "confusion_matrix.html", "result.json",
    }  # fmt: skip
    result = RunResult.from_dict(json.loads(artifact(done.uri, row.run_id, "result.json", tmp_path).read_text()))
    assert result.guarantee is not None
    assert result.guarantee.epsilon == result.guarantee.executed.epsilon() == row.metrics["privacy/epsilon"]
    assert result.evaluation.accuracy == row.metrics["test/accuracy"]
    assert RunResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result
    overrides = yaml.safe_load(artifact(done.uri, row.run_id, "overrides.yaml", tmp_path).read_text())
    assert "privacy.epsilon=3" in overrides


def test_a_run_over_users_in_pytorch_names_its_unit(cli: Cli, tmp_path: Path) -> None:
    done = cli(
        "pipeline=dp_sgd_users", "privacy=adaptive", "privacy.noise_multiplier=1", "partition=dirichlet",
        "pipeline.epochs=2", "pipeline.batch_size=20", "evaluations=2",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.out.startswith("dp_sgd_users adaptive sigma=1 seed=0")
    row = done.row
    expected = {"pipeline": "dp_sgd_users", "privacy.unit": "user", "engine.user_update": "delta"}
    assert {key: row.tags[key] for key in expected} == expected
    assert {"partition.sha256", "engine.final_clip_norm"} <= set(row.tags)
    # What a sample really held shows nowhere: neither in tags nor in metrics.
    shown = {key for key in (*row.tags, *row.metrics) if "cohort" in key or "examples" in key}
    assert shown == {"time/examples_per_s"}  # of users, as expected and not as they came
    assert row.params["privacy.name"] == "adaptive"
    guarantee = json.loads(artifact(done.uri, row.run_id, "privacy.json", tmp_path).read_text())
    # 2 passes over 100 users, 20 at a time.
    assert (guarantee["unit"], guarantee["population"], guarantee["steps"]) == ("user", 100, 10)
    assert guarantee["adaptive_clipping"]["count_stddev"] == 1.0
    assert "100 users" in row.tags["mlflow.note.content"]


def test_the_pipeline_over_users_never_trains_examples(cli: Cli) -> None:
    done = cli("pipeline=dp_sgd_users", "privacy.unit=example", "privacy.noise_multiplier=1", *QUICK)
    assert done.code == 1
    assert "does not fit pipeline=dp_sgd_users" in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_a_run_without_privacy_has_no_epsilon_anywhere(cli: Cli) -> None:
    row = cli("pipeline=sgd", *QUICK).row
    assert not [key for key in (*row.metrics, *row.tags) if key.startswith("privacy")]
    assert "no privacy guarantee" in row.tags["mlflow.note.content"]


def test_the_logged_model_has_the_logged_accuracy(cli: Cli) -> None:
    done = cli("pipeline=sgd", *QUICK, "tracking.log_model=true")
    mlflow.set_tracking_uri(done.uri)
    model = mlflow.pyfunc.load_model(f"runs:/{done.row.run_id}/model")
    test = load_digits().test
    accuracy = (np.asarray(model.predict(test.inputs)).argmax(axis=1) == test.labels).mean()
    assert accuracy == done.row.metrics["test/accuracy"]


def test_same_seed_gives_same_result_and_noise_seed_is_marked(cli: Cli) -> None:
    arguments = ("pipeline=dp_sgd", "privacy.noise_multiplier=5", "privacy.noise_seed=1", *QUICK)
    first, second = (cli(*arguments, experiment=name).row for name in ("a", "b"))
    assert first.metrics["test/loss"] == second.metrics["test/loss"]
    assert first.tags["privacy.simulated"] == "true"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["pipeline=dp_sg"], "error: pipeline=dp_sg is unknown; choose dp_fed_avg, dp_sgd, dp_sgd_users,"),
        (["dataset=mnis"], "error: dataset=mnis is unknown; choose adult,"),
        (["privacy.epsilo=3"], "error: unknown key privacy.epsilo; did you mean privacy.epsilon"),
        (["seed=[1"], "error: "),
        (["pipeline=dp_sgd", "privacy.epsilon=0"], "error: privacy.epsilon=0: input should be greater than 0"),
        (["privacy.epsilon=3"], "error: privacy.epsilon=3 has no effect on pipeline=sgd"),
        (["pipeline=dp_sgd", "privacy.epsilon=3", "privacy.delta=0.01"], "delta=0.01 must lie in (0, 0.000695)"),
        (["pipeline=dp_sgd", "privacy.epsilon=3", "pipeline.batch_size=2000"], "a sampling rate above 1"),
        (["pipeline=dp_sgd_users", "privacy.epsilon=3", "pipeline.batch_size=101"], "exceeds the population of 100"),
        (["pipeline=dp_sgd", "privacy.epsilon=3", "privacy=adaptive", "pipeline.grad_sample=hooks"], "the norm of"),
        (["pipeline=dp_sgd", "privacy.epsilon=1e-7"], "error: privacy.epsilon=1e-07 cannot be reached"),
        (["pipeline=fed_avg", "partition.clients=2000"], "error: partition.clients=2000"),
        (["pipeline=fed_avg", "partition.clients=5"], "pipeline.clients_per_round="),
        (["dataset=mnist", "dataset.folder=/nowhere"], "/nowhere"),
        (["dataset=npz", "dataset.file=/nowhere/mine.npz"], "/nowhere/mine.npz"),
        (["tracking.uri=http://127.0.0.1:9"], "error: tracking.uri=http://127.0.0.1:9: the server does not answer"),
        (["tracking.uri=sqlite:////proc/runs.db"], "error: tracking.uri=sqlite:////proc/runs.db is not writable"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_clear_line(cli: Cli, overrides: list[str], message: str) -> None:
    failed = cli(*overrides)
    assert failed.code == 1
    assert message in failed.err
    assert failed.err.count("\n") == 1
    assert failed.out == ""
    if not any(item.startswith("tracking") for item in overrides):
        assert [row.status for row in failed.rows] in ([], ["FAILED"])


@pytest.mark.parametrize(
    ("pipeline", "package", "extra"), [("sgd", "torch", "central"), ("fed_avg", "tensorflow_federated", "federated")]
)
def test_an_engine_that_is_not_installed_is_one_clear_line(
    pipeline: str, package: str, extra: str, tmp_path: Path
) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from pipelines.run import main; main()"
    command = [sys.executable, "-c", code, f"pipeline={pipeline}", f"tracking.uri=sqlite:///{tmp_path / 'runs.db'}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert extra in done.stderr
    assert done.stderr.count("\n") == 1


def test_flags_that_exclude_each_other_are_one_line(cli: Cli) -> None:
    failed = cli("-m", "pipeline=sgd", "--cfg", "job")
    assert failed.code == 1
    assert failed.err.startswith("error: --multirun and --cfg do not go together")
    assert failed.err.count("\n") == 1


def test_a_shown_configuration_may_be_read_in_part() -> None:
    command = [sys.executable, "-m", "pipelines.run", "--cfg", "all"]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            command, stdout=writer, stderr=subprocess.PIPE, env=os.environ | {"PYTHONUNBUFFERED": "1"}
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_debug_shows_the_traceback(cli: Cli) -> None:
    assert "Traceback" in cli("pipeline=dp_sgd", "privacy.epsilon=3", "privacy.delta=0.01", "debug=true").err


def test_divergence_ends_failed_with_its_step_and_keeps_its_metrics(cli: Cli) -> None:
    failed = cli("pipeline=sgd", "pipeline.learning_rate=3e38", "pipeline.epochs=40", "evaluations=9999")
    assert failed.code == 1
    assert "training diverged at step" in failed.err
    assert failed.row.status == "FAILED"
    assert "lower the learning rate" in failed.row.tags["error"]
    assert "test/accuracy" in failed.row.metrics


def test_an_interrupted_run_keeps_the_epsilon_of_its_steps(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    store = open_store(uri, "tests")
    process = start(
        "pipeline=dp_sgd", "privacy.noise_multiplier=20", "pipeline.epochs=100000", "evaluations=10000", uri=uri
    )
    wait_for_metric(tmp_path / "runs.db")
    process.send_signal(signal.SIGTERM)  # as SIGINT, by which a parallel sweep is interrupted in test_spent.py
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    (run,) = store.client.search_runs([store.experiment_id])
    assert run.info.status == "KILLED"
    guarantee = json.loads(artifact(uri, run.info.run_id, "privacy.json", tmp_path).read_text())
    assert 0 < guarantee["steps"] < 199_000
    assert guarantee["epsilon"] == run.data.metrics["privacy/epsilon"] > 0
    assert f"{guarantee['steps']:,} steps spent epsilon {rounded_up(guarantee['epsilon'])} at delta 1e-05" in err
    assert f"run {run.info.run_id} is marked KILLED" in err
    assert run.data.tags["privacy.sampler"] == "poisson"


def test_a_killed_run_ends_its_worker_and_is_closed_later(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    store = open_store(uri, "tests")
    process = start("pipeline=fed_avg", "pipeline.rounds=100000", "evaluations=100000", uri=uri)
    wait_for_metric(tmp_path / "runs.db")
    workers = [child for child in psutil.Process(process.pid).children(True) if "worker_binary" in child.name()]
    assert workers
    process.kill()
    # Reads the pipes to their end: a worker that held them would keep this waiting.
    process.communicate(timeout=60)
    psutil.wait_procs(workers, timeout=20)
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    (run,) = store.client.search_runs([store.experiment_id])
    assert run.info.status == "RUNNING"
    close_orphans(store)
    assert store.client.get_run(run.info.run_id).info.status == "KILLED"


def test_a_run_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'runs.db'}", "tests")
    with open_run(store, RunStart(name="alive")) as log:
        close_orphans(store)
        assert store.client.get_run(log.run_id).info.status == "RUNNING"


def wait_for_metric(database: Path) -> None:
    """Until a first evaluation is in the database."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        with sqlite3.connect(database, timeout=10) as connection:
            if connection.execute("select count(*) from metrics").fetchone()[0]:
                return
        time.sleep(0.2)
    raise AssertionError("no metric was logged")


def test_help_imports_no_framework() -> None:
    code = (
        "import sys; sys.argv = ['run', '--help']; from pipelines.run import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'tensorflow', 'mlflow', 'pandas'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.endswith("[]\n")
    assert out.count("python -m pipelines.run ") >= 5
    for word in ("dp_fed_avg", "dataset:", "experiment:", "partition:", "tracking:"):
        assert word in out
