"""DP-FTRL through secure sums, as its users run it."""

import json
from pathlib import Path

import mlflow
import pytest

from pipelines.privacy.guarantee import PrivacyGuarantee
from pipelines.privacy.mechanisms.tree import TreeMechanism
from tests.conftest import Cli


def test_a_run_by_trees_logs_its_guarantee(cli: Cli, tmp_path: Path) -> None:
    done = cli(
        "pipeline=dp_fed_avg", "privacy=tree", "privacy.epsilon=8", "pipeline.rounds=3", "evaluations=3",
        "pipeline.clients_per_round=40", "pipeline.secure_aggregation=true",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "ERROR" not in done.err
    assert "note: privacy=tree with pipeline.clients_per_round=40 of 100 users" in done.err
    row = done.row
    assert (row.name, row.status) == ("dp_fed_avg tree eps=8 seed=0", "FINISHED")
    expected = {
        "privacy.unit": "user", "privacy.relation": "zero_out_one", "privacy.mechanism": "tree",
        "privacy.accountant": "dp-accounting RDP 0.4.3", "privacy.simulated": "false",
    }  # fmt: skip
    assert {key: row.tags[key] for key in expected} == expected
    (file,) = (
        mlflow.artifacts.download_artifacts(
            run_id=row.run_id, artifact_path=name, tracking_uri=done.uri, dst_path=str(tmp_path)
        )
        for name in ("privacy.json",)
    )
    guarantee = PrivacyGuarantee.from_dict(json.loads(Path(file).read_text()))
    plan = guarantee.executed
    assert isinstance(plan, TreeMechanism)
    # 40 of the 100 users a round: a tree takes two rounds, and the third starts another.
    assert (plan.population, plan.expected_batch_size, plan.trees) == (100, 40, (2, 1))
    assert 7.99 < plan.epsilon() == guarantee.epsilon == row.metrics["privacy/epsilon"] <= 8
    assert guarantee.secure_aggregation


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "privacy.restart_every=3",
            "error: privacy.restart_every=3 with pipeline.clients_per_round=40 gives a tree 120",
        ),
        ("privacy=adaptive", "error: pipeline.secure_aggregation=true does not fit privacy=adaptive"),
    ],
)
def test_what_the_guarantee_would_not_cover_is_one_clear_line(cli: Cli, override: str, message: str) -> None:
    group = () if override.startswith("privacy=") else ("privacy=tree",)
    done = cli(
        "pipeline=dp_fed_avg", *group, override, "privacy.epsilon=8", "pipeline.clients_per_round=40",
        "pipeline.secure_aggregation=true",
    )  # fmt: skip
    assert done.code == 1
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1
