"""The guarantee of a run that did not end."""

import re
from dataclasses import replace

import pytest

from pipelines.core.errors import DivergedError, UserError
from pipelines.engines.central.training import StepRecorder
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism
from pipelines.privacy.rounding import rounded_up
from pipelines.tracking.read import read_json, read_text
from pipelines.tracking.run_log import REFUTED_TAG
from pipelines.tracking.store import open_store
from tests.conftest import Cli


def test_a_diverging_private_run_accounts_for_its_last_step(cli: Cli) -> None:
    failed = cli("pipeline=dp_sgd", "privacy.noise_multiplier=9", "privacy.clip_norm=30", "pipeline.learning_rate=3e38")
    assert failed.row.status == "FAILED"
    told = re.search(r"diverged at step (\d+)", failed.row.tags["error"])
    assert told
    guarantee = read_json(open_store(failed.uri, failed.experiment), failed.row.run_id, "privacy.json")
    assert guarantee["steps"] == int(told.group(1))
    assert rounded_up(guarantee["epsilon"], 4) in failed.row.tags["mlflow.note.content"]


def test_a_run_failing_at_once_leaves_its_sampler_unjudged(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(self: StepRecorder, step: int, examples: float) -> None:
        raise DivergedError(step, "a weight")

    monkeypatch.setattr(StepRecorder, "tick", diverge)
    failed = cli("pipeline=dp_sgd", "privacy.epsilon=3")
    assert failed.row.metrics["privacy/epsilon"] > 0
    assert "not checked" in failed.row.tags["mlflow.note.content"]
    told = read_text(open_store(failed.uri, failed.experiment), failed.row.run_id, "privacy_statement.md")
    assert told is not None
    assert "not checked" in told
    assert "`privacy.sampler`" not in told


def test_a_run_failing_before_its_engine_spends_nothing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise MemoryError("no room for the weights")

    monkeypatch.setattr("pipelines.runs.execute.initial_weights", refuse)
    failed = cli("pipeline=dp_sgd", "privacy.epsilon=3")
    assert failed.row.status == "FAILED"
    guarantee = read_json(open_store(failed.uri, failed.experiment), failed.row.run_id, "privacy.json")
    assert (guarantee["steps"], guarantee["epsilon"]) == (0, 0)


def test_a_model_beyond_the_memory_opens_no_run(cli: Cli) -> None:
    failed = cli("pipeline=dp_sgd", "privacy.epsilon=3", "model=layers", "model.layers=[{dense: 100000000000}]")
    assert failed.code == 1
    assert failed.err.startswith("error: model.layers gives 7,500,000,000,010 weights")
    assert failed.err.count("\n") == 1
    with pytest.raises(UserError):
        open_store(failed.uri, failed.experiment, create=False)


def test_a_failed_run_off_its_plan_has_no_guarantee(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    tick = StepRecorder.tick

    def quieter(self: StepRecorder, step: int, examples: float) -> object:
        if step == 3:
            raise DivergedError(step, "a weight")
        assert isinstance(self._plan, PoissonGaussianMechanism)
        self._plan = replace(self._plan, noise_multiplier=0.5)
        return tick(self, step, examples)

    monkeypatch.setattr(StepRecorder, "tick", quieter)
    failed = cli("pipeline=dp_sgd", "privacy.epsilon=3", "evaluations=1")
    assert "noise_multiplier=0.5 instead of" in failed.row.tags[REFUTED_TAG]
    assert "privacy/epsilon" not in failed.row.metrics
