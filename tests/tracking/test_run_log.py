import contextlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from pipelines.core.errors import UserError
from pipelines.data.dataset import Dataset
from pipelines.data.split import Split
from pipelines.tracking import mlflow_run
from pipelines.tracking.listeners import open_run
from pipelines.tracking.read import read_rows
from pipelines.tracking.run_log import NOTE, RunStart
from pipelines.tracking.store import Store


def artifact(store: Store, run_id: str, name: str) -> Path:
    uri = store.client.get_run(run_id).info.artifact_uri
    return Path(uri.removeprefix("file://"), name)


def run_that_raises(store: Store, error: BaseException) -> str:
    with (
        contextlib.suppress(type(error)),
        open_run(store, RunStart(name="a", tags={"pipeline": "sgd"}, params={"seed": 0})) as log,
    ):
        log.on_metrics(3, {"test/accuracy": 0.25})
        raise error
    return log.run_id


def test_contract_reads_back_through_mlflow(store: Store) -> None:
    tags = {"pipeline": "dp_sgd", "privacy.unit": "example", NOTE: "Trains *privately*."}
    params = {"seed": 0, "privacy.noise_multiplier": None, "model.widths": (8, 8), "long": "x" * 7000}
    with open_run(store, RunStart(name="dp_sgd eps=3 seed=0", tags=tags, params=params)) as log:
        assert store.client.get_run(log.run_id).info.status == "RUNNING"
        for step in (10, 20):
            log.on_metrics(step, {"test/accuracy": step / 100, "privacy/epsilon": step / 10})
        log.on_artifact("config.yaml", "seed: 0\n")
        log.on_artifact("privacy.json", {"epsilon": 2.0, "unit": "é"})

    run = store.client.get_run(log.run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "dp_sgd eps=3 seed=0")
    assert {"pipeline": "dp_sgd", "privacy.unit": "example"}.items() <= run.data.tags.items()
    assert run.data.tags["mlflow.note.content"] == "Trains *privately*."
    assert run.data.params["privacy.noise_multiplier"] == "null"
    assert run.data.params["model.widths"] == "(8, 8)"
    assert len(run.data.params["long"]) == mlflow_run.PARAM_LENGTH
    for name, values in {"test/accuracy": [0.1, 0.2], "privacy/epsilon": [1.0, 2.0]}.items():
        history = sorted(store.client.get_metric_history(log.run_id, name), key=lambda metric: metric.step)
        assert [(metric.step, metric.value) for metric in history] == list(zip((10, 20), values, strict=True))
    assert artifact(store, log.run_id, "config.yaml").read_text() == "seed: 0\n"
    assert json.loads(artifact(store, log.run_id, "privacy.json").read_text()) == {"epsilon": 2.0, "unit": "é"}


def test_figure_and_nested_names_become_artifacts(store: Store) -> None:
    figure = Figure()
    figure.subplots().plot([0, 1])
    with open_run(store, RunStart(name="a")) as log:
        log.on_artifact("figures/confusion.png", figure)
    assert artifact(store, log.run_id, "figures/confusion.png").read_bytes().startswith(b"\x89PNG")


def test_dataset_is_recorded_by_name_shape_and_fingerprint(store: Store) -> None:
    split = Split(np.zeros((5, 4), np.float32), np.arange(5) % 2)
    dataset = Dataset(name="tiny", train=split, test=split, classes=2)
    with open_run(store, RunStart(name="a", dataset=dataset)) as log:
        pass
    inputs = store.client.get_run(log.run_id).inputs
    assert inputs is not None
    (recorded,) = inputs.dataset_inputs
    assert recorded.dataset.name == "tiny"
    assert dataset.fingerprint.startswith(recorded.dataset.digest)
    assert dataset.fingerprint in recorded.dataset.source
    assert json.loads(str(recorded.dataset.profile))["num_train"] == 5


def test_exception_ends_failed_with_one_line_and_keeps_metrics(store: Store) -> None:
    run_id = run_that_raises(store, ValueError("first line\nsecond line"))
    run = store.client.get_run(run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["error"] == "ValueError: first line second line"
    assert run.data.metrics == {"test/accuracy": 0.25}


def test_user_error_is_kept_word_by_word(store: Store) -> None:
    run_id = run_that_raises(store, UserError("privacy.delta=2 must be below 1"))
    assert store.client.get_run(run_id).data.tags["error"] == "privacy.delta=2 must be below 1"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_interruption_ends_killed_and_keeps_metrics(store: Store, error: BaseException) -> None:
    run_id = run_that_raises(store, error)
    run = store.client.get_run(run_id)
    assert run.info.status == "KILLED"
    assert run.data.metrics == {"test/accuracy": 0.25}


def test_bad_params_do_not_leave_the_run_running(store: Store) -> None:
    with (
        pytest.raises(UserError, match=r"tracking\.uri="),
        open_run(store, RunStart(name="a", params={"bad key?!": 1})),
    ):
        pass
    assert [row.status for row in read_rows(store)] == ["FAILED"]


def test_nan_is_kept_and_infinity_left_out(store: Store) -> None:
    with open_run(store, RunStart(name="a")) as log:
        log.on_metrics(1, {"test/loss": math.nan, "privacy/epsilon": math.inf})
    (row,) = read_rows(store)
    assert list(row.metrics) == ["test/loss"]
    assert math.isnan(row.metrics["test/loss"])


def test_metrics_are_sent_while_the_run_lasts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_run, "FLUSH_S", 0.0)
    with open_run(store, RunStart(name="a")) as log:
        log.on_metrics(1, {"test/accuracy": 0.5})
        assert store.client.get_run(log.run_id).data.metrics == {"test/accuracy": 0.5}


def test_metrics_travel_in_batches(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """600 steps of three metrics, far more than a run makes between two flushes, are two requests."""
    monkeypatch.setattr(mlflow_run, "FLUSH_S", math.inf)
    sent, send = [], store.client.log_batch

    def count(run_id: str, **batch: Any) -> None:
        sent.append(len(batch.get("metrics", ())))
        send(run_id, **batch)

    with open_run(store, RunStart(name="a")) as log:
        monkeypatch.setattr(store.client, "log_batch", count)
        for step in range(600):
            log.on_metrics(step, {"test/accuracy": 0.5, "test/loss": 1.0, "privacy/epsilon": 2.0})
        log.flush()
        assert sent == [1000, 800]
