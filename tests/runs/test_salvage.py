"""The guarantee of a run that did not end."""

import re
from dataclasses import replace

import pytest

from pipelines.core.errors import DivergedError
from pipelines.engines.central.training import StepRecorder
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism
from pipelines.tracking.read import read_json, read_text
from pipelines.tracking.run_log import REFUTED_TAG
from pipelines.tracking.store import open_store
from tests.conftest import Cli


def test_a_private_run_that_diverges_accounts_for_the_step_it_tells_of(cli: Cli) -> None:
    failed = cli("pipeline=dp_sgd", "privacy.noise_multiplier=9", "privacy.clip_norm=30", "pipeline.learning_rate=3e38")
    assert failed.row.status == "FAILED"
    told = re.search(r"diverged at step (\d+)", failed.row.tags["error"])
    assert told
    guarantee = read_json(open_store(failed.uri, failed.experiment), failed.row.run_id, "privacy.json")
    assert guarantee["steps"] == int(told.group(1))
    assert "changes the probability" in failed.row.tags["mlflow.note.content"]


def test_a_run_that_fails_in_its_first_step_says_that_its_sampler_was_not_judged(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(self: StepRecorder, step: int, examples: float) -> None:
        raise DivergedError(step, "a weight")

    monkeypatch.setattr(StepRecorder, "tick", diverge)
    failed = cli("pipeline=dp_sgd", "privacy.epsilon=3")
    assert failed.row.metrics["privacy/epsilon"] > 0
    assert "which was not checked, since the run did not end" in failed.row.tags["mlflow.note.content"]
    told = read_text(open_store(failed.uri, failed.experiment), failed.row.run_id, "privacy_statement.md")
    assert told is not None
    assert "This was not checked" in told
    assert "are tested against this law" not in told


def test_a_run_that_fails_has_no_guarantee_where_its_engine_followed_another_plan(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
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
