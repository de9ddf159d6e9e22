"""What a run takes its data for: users, copies, chance accuracy. Nothing is misread without a word."""

import re
import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from pipelines.core.paths import REPOSITORY
from pipelines.tracking.read import read_rows
from pipelines.tracking.store import open_store
from tests.conftest import Cli, Outcome

PRIVATE = ("privacy.noise_multiplier=2", "privacy.delta=1e-3", "evaluations=1")
USERS = ("pipeline=dp_sgd_users", "pipeline.batch_size=10", "pipeline.epochs=2", *PRIVATE)
EXAMPLES = ("pipeline=dp_sgd", "pipeline.batch_size=60", "pipeline.epochs=2", *PRIVATE)


def archive(folder: Path, **changes: Any) -> str:
    """300 separable examples of 20 users."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    inputs = np.eye(3)[labels] + rng.normal(0, 0.2, (400, 3))
    arrays = {"x_train": inputs[:300], "y_train": labels[:300], "x_test": inputs[300:], "y_test": labels[300:]}
    path = folder / "mine.npz"
    np.savez(path, classes=3, **{"client_ids": np.arange(300) % 20, **arrays, **changes})
    return f"dataset.file={path}"


def statement_of(done: Outcome, folder: Path) -> str:
    path = mlflow.artifacts.download_artifacts(
        run_id=done.row.run_id, artifact_path="privacy_statement.md", tracking_uri=done.uri, dst_path=str(folder)
    )
    return Path(path).read_text(encoding="utf-8")


def test_users_in_the_data_are_the_users(cli: Cli, tmp_path: Path) -> None:
    done = cli("dataset=npz", archive(tmp_path), *USERS)
    assert (done.code, done.err) == (0, "")
    row = done.row
    assert {key: value for key, value in row.params.items() if key.startswith("partition.")} == {
        "partition.name": "natural"
    }
    assert row.tags["partition.simulated"] == "false"
    text = statement_of(done, tmp_path)
    assert "20 users" in text
    assert "Simulated users" not in text


def test_invented_users_are_reported_where_data_has_its_own(cli: Cli, tmp_path: Path) -> None:
    done = cli("dataset=npz", archive(tmp_path), *USERS, "partition=iid", "partition.clients=50")
    assert done.code == 0
    assert "partition=iid SIMULATES USERS" in done.err
    assert done.err.count("\n") == 1
    assert done.row.tags["partition.simulated"] == "true"
    for text in (done.row.tags["mlflow.note.content"], statement_of(done, tmp_path)):
        (line,) = [line for line in text.splitlines() if "Simulated users" in line]
        assert "`partition=iid`" in line
        assert " 50 " in line


def test_data_without_users_is_dealt_as_before(cli: Cli) -> None:
    rows = [
        cli("pipeline=fed_avg", "pipeline.rounds=1", "evaluations=1", *chosen, experiment=name).row
        for name, chosen in (("a", ()), ("b", ("partition=iid",)))
    ]
    for row in rows:
        assert (row.params["partition.name"], row.params["partition.clients"]) == ("iid", "100")
        assert row.tags["partition.simulated"] == "true"
    assert rows[0].tags["partition.sha256"] == rows[1].tags["partition.sha256"]
    assert rows[0].tags["config.sha256"] == rows[1].tags["config.sha256"]


@pytest.mark.parametrize("released", [False, True])
def test_copies_are_counted_for_the_trainer_and_logged_on_request(cli: Cli, tmp_path: Path, released: bool) -> None:
    inputs = np.random.default_rng(1).random((300, 3))
    inputs[:6] = inputs[10]
    labels = np.arange(300) % 3
    labels[:6] = labels[10]
    own = archive(tmp_path, x_train=inputs, y_train=labels)
    done = cli("dataset=npz", own, *EXAMPLES, f"privacy.release_copies={released}")
    assert done.code == 0, done.err
    (note,) = [line for line in done.err.splitlines() if "training examples" in line]
    assert re.findall(r"\d+", note)[:2] == ["7", "7"]
    text = statement_of(done, tmp_path)
    assert ("| 7 |" in text) == released
    assert (" 7 times" in text) == released
    logged = {key: value for key, value in done.row.metrics.items() if key.startswith("diagnostics/")}
    assert logged == ({"diagnostics/largest_group_of_equal_examples": 7} if released else {})
    assert not [value for value in (*done.row.tags.values(), *done.row.params.values()) if " 7 " in value]


def test_runs_and_sweeps_of_a_file_share_its_experiment(cli: Cli, tmp_path: Path) -> None:
    quick = ("dataset=npz", archive(tmp_path), *EXAMPLES, "tracking.experiment=null")
    one = cli(*quick)
    swept = cli("-m", *quick, "seed=0,1")
    assert (one.code, swept.code) == (0, 0), one.err + swept.err
    client = open_store(one.uri, "mine", create=False).client
    assert {found.name for found in client.search_experiments()} == {"Default", "mine"}
    assert "sweep on mine (2 runs)" in [row.name for row in read_rows(open_store(one.uri, "mine"))]
    shutil.rmtree(REPOSITORY / "outputs" / "frontier" / "mine")


def test_an_accuracy_of_the_majority_class_is_reported(cli: Cli, tmp_path: Path) -> None:
    huge = np.random.default_rng(2).random((400, 3)) * [1, 1, 3e5]
    quick = ("dataset=npz", "pipeline=sgd", "pipeline.epochs=2", "evaluations=1")
    own = archive(
        tmp_path, x_train=huge[:300], x_test=huge[300:], y_train=np.arange(300) % 3, y_test=np.arange(100) // 99
    )
    done = cli(*quick, own)
    assert done.code == 0, done.err
    assert re.search(r"^note: .*column 2 \([\d.]+ to \d+\) of x_test .*dataset\.bounds=\[\[2,0,300000\]\]", done.err)
    assert "most frequent class, accuracy 0.9900" in done.out
    swept = cli("-m", *quick, own, "seed=0,1", experiment="mine")
    assert swept.out.count("most frequent class") == 2
    assert swept.err.count("column 2") == 1
    one_class = cli(*quick, archive(tmp_path, y_test=np.zeros(100, int)))
    assert "one class" in one_class.out
    learned = cli(*quick, archive(tmp_path), "pipeline.epochs=20")
    assert "most frequent class" not in learned.out
    assert learned.err == ""
