"""Audits as their users call them."""

from pathlib import Path

import pytest

from pipelines.audit import main
from pipelines.tracking.store import open_store
from tests.conftest import Cli, Outcome
from tests.mutants.central import half_noise

QUICK = ("pipeline.epochs=2", "evaluations=1", "threads=1")
PRIVATE = ("pipeline=dp_sgd", "privacy.epsilon=3", *QUICK)


def artifacts(done: Outcome) -> set[str]:
    return {item.path for item in open_store(done.uri, done.experiment).client.list_artifacts(done.row.run_id)}


def test_a_mechanism_audit_logs_its_bound_beside_the_claim(cli: Cli) -> None:
    done = cli(*PRIVATE, "audit=mechanism")
    assert done.code == 0
    row = done.row
    assert row.status == "FINISHED"
    assert 1 < row.metrics["audit/epsilon_lower_bound"] < row.metrics["privacy/epsilon"] <= 3
    assert row.metrics["audit/epsilon_estimate"] == pytest.approx(row.metrics["privacy/epsilon"], rel=0.05)
    assert row.metrics["audit/confidence"] == 0.95
    assert (row.tags["audit"], row.tags["audit.verdict"]) == ("mechanism", "not contradicted")
    assert "audit.canaries" not in row.tags
    assert "audit.json" in artifacts(done)
    assert "audit=mechanism: epsilon at least" in done.out


def test_a_refuted_claim_fails_the_run_in_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    half_noise(monkeypatch)
    failed = cli(*PRIVATE, "audit=mechanism")
    assert failed.code == 1
    assert "audit=mechanism REFUTES THIS RUN" in failed.err
    assert failed.err.count("\n") == 1
    row = failed.row
    assert row.status == "FAILED"
    assert "REFUTES THIS RUN" in row.tags["error"]
    assert row.tags["audit.verdict"] == "contradicted"
    assert row.metrics["audit/epsilon_lower_bound"] > row.metrics["privacy/epsilon"]


def test_a_finished_run_is_audited_from_its_record(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    done = cli(*PRIVATE)
    assert "audit/epsilon_lower_bound" not in done.row.metrics
    assert main([done.row.run_id, "--uri", done.uri]) == 0
    assert "audit=mechanism: epsilon at least" in capfd.readouterr().out
    row = done.row
    assert row.status == "FINISHED"
    assert 1 < row.metrics["audit/epsilon_lower_bound"] < row.metrics["privacy/epsilon"]
    half_noise(monkeypatch)
    assert main([row.run_id, "--uri", done.uri]) == 1
    err = capfd.readouterr().err
    assert "REFUTES THIS RUN" in err
    assert err.count("\n") == 1
    assert done.row.status == "FAILED"


def test_what_cannot_be_audited_is_one_clear_line(cli: Cli, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = cli("pipeline=sgd", *QUICK)
    for arguments, words in (
        ([done.row.run_id, "--uri", done.uri], "has no privacy.json"),
        (["0" * 32, "--uri", done.uri], "is not in sqlite"),
        (["0" * 32, "--uri", f"sqlite:///{tmp_path / 'none.db'}"], "does not exist yet"),
    ):
        assert main(arguments) == 1
        err = capfd.readouterr().err
        assert words in err
        assert err.count("\n") == 1


def test_canaries_mark_their_run_and_stay_secret(cli: Cli) -> None:
    done = cli(
        "pipeline=sgd",
        "evaluations=1",
        "threads=1",
        "pipeline.epochs=10",
        "audit=one_run",
        "audit.canaries=300",
        "audit.guesses=100",
    )
    assert done.code == 0
    row = done.row
    assert row.tags["audit.canaries"] == "300"
    assert row.name == "sgd seed=0 audit=one_run"
    assert "canaries" in row.tags["mlflow.note.content"]
    assert row.metrics["audit/epsilon_lower_bound"] > 0.3


def test_canary_clients_join_federated_rounds(cli: Cli) -> None:
    overrides = ("pipeline=fed_avg", "partition.clients=300", "pipeline.rounds=15", "evaluations=1")
    row = cli(*overrides, "audit=canary_clients", "audit.canaries=150").row
    assert row.status == "FINISHED"
    # 40 guesses, all of them right, prove 2.55.
    assert row.metrics["audit/epsilon_lower_bound"] > 1.5
    assert row.metrics["audit/epsilon_estimate"] > 5


@pytest.mark.parametrize("mechanism", ["fixed", "tree"])
def test_canary_clients_under_privacy_stay_below_the_claim(cli: Cli, mechanism: str) -> None:
    overrides = ("pipeline=dp_fed_avg", "partition.clients=300", "pipeline.rounds=10", f"privacy={mechanism}")
    row = cli(*overrides, "privacy.epsilon=8", "privacy.delta=1e-4", "audit=canary_clients", "audit.canaries=150").row
    assert row.status == "FINISHED"
    assert row.metrics["audit/epsilon_lower_bound"] < row.metrics["privacy/epsilon"]
    assert row.tags["mlflow.note.content"].startswith("Up to 150 canaries")


def test_membership_is_a_diagnostic(cli: Cli) -> None:
    done = cli(*PRIVATE, "audit=membership")
    assert {"membership.png", "membership.json"} <= artifacts(done)
    assert "audit=membership: TPR" in done.out
    rates = {key: value for key, value in done.row.metrics.items() if key.startswith("diagnostics/")}
    # One of the 360 test digits is 0.28 % of them: what happens at 0.1 % cannot be seen.
    assert set(rates) == {"diagnostics/membership_tpr_at_1pct_fpr"}
    assert "1,000 for 0.1 % FPR are needed" in done.out
    assert all(0 <= value < 0.2 for value in rates.values())
    assert not any(key.startswith("audit/") for key in done.row.metrics)


def test_a_sweep_over_pipelines_gets_one_figure_of_membership(cli: Cli) -> None:
    done = cli("-m", "pipeline=sgd,dp_sgd", "privacy.epsilon=3", *QUICK, "audit=membership")
    assert done.code == 0
    (parent,) = (row for row in done.rows if row.tags.get("kind") == "sweep")
    client = open_store(done.uri, done.experiment).client
    files = {item.path for item in client.list_artifacts(parent.run_id, "membership")}
    assert files == {"membership/membership.png", "membership/membership.csv"}
    table = done.out[done.out.index("Who was in the training data?") :]
    assert "TPR at 0.1 % FPR" in table
    assert all(name in table for name in ("sgd", "dp_sgd", "none"))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["pipeline=sgd", "audit=mechanism"], "audit=mechanism has no effect on pipeline=sgd"),
        (["pipeline=fed_avg", "audit=one_run"], "audit=one_run does not fit pipeline=fed_avg"),
        (["pipeline=sgd", "audit=canary_clients"], "use audit=one_run"),
        (["pipeline=fed_avg", "pipeline.engine=stock", "audit=canary_clients"], "does not fit pipeline.engine=stock"),
        (["pipeline=fed_avg", "audit=canary_clients", "audit.score=loss"], "input should be 'final' or 'largest'"),
        (["pipeline=sgd", "audit=one_run", "audit.guesses=7"], "audit.guesses=7 must be even"),
        (["pipeline=sgd", "audit=one_run", "audit.canaries=2000"], "audit.canaries=2000 must be at least 10"),
        (["pipeline=sgd", "audit=none", "audit.canaries=5"], "audit=none has no such key; audit=canary_clients"),
    ],
)
def test_a_mistake_is_one_clear_line(cli: Cli, overrides: list[str], words: str) -> None:
    failed = cli(*overrides)
    assert failed.code == 1
    assert words in failed.err
    assert failed.err.count("\n") == 1
