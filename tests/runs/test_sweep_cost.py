"""What a sweep's parent says of the cost of choosing, read from its children's guarantees."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.privacy.guarantee import PrivacyGuarantee
from pipelines.privacy.hyperparameter_selection import PrivateRun, choosing_costs, no_common_bound
from pipelines.privacy.mechanisms.base import PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism
from pipelines.privacy.rounding import rounded_up
from pipelines.runs.sweep_cost import in_words, record_cost
from pipelines.tracking.listeners import open_run
from pipelines.tracking.parent_run import start_sweep
from pipelines.tracking.read import read_row
from pipelines.tracking.run_log import RunStart
from pipelines.tracking.store import Store, open_store

PLAN = PoissonGaussianMechanism(
    unit=PrivacyUnit.USER, population=1000, sampling_probability=0.1, steps=100, noise_multiplier=2.2478,
    clip_norm=0.3, delta=1e-5,
)  # fmt: skip


@pytest.fixture(scope="module")
def store(migrated_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    database = shutil.copy(migrated_database, tmp_path_factory.mktemp("store"))
    return open_store(f"sqlite:///{database}", "digits")


def child(
    store: Store,
    parent_id: str,
    plan: PoissonGaussianMechanism | None,
    *,
    lost: bool = False,
    users: str = "0",
    params: dict[str, str] | None = None,
) -> None:
    tags = {} if plan is None else {"privacy.unit": str(plan.unit)}
    if plan is not None and plan.unit is PrivacyUnit.USER:
        tags["partition.sha256"] = users * 64
    with open_run(store, RunStart(name="child", tags=tags, params=params or {}, parent_id=parent_id)) as log:
        if plan is not None and not lost:
            log.on_artifact("privacy.json", PrivacyGuarantee.of(plan, simulated=False).to_dict())


def text_of(store: Store, run_id: str, folder: Path) -> str:
    return Path(store.client.download_artifacts(run_id, "choosing.md", str(folder))).read_text()


def test_the_parent_carries_what_its_children_cost_together(store: Store, tmp_path: Path) -> None:
    parent = start_sweep(store, name="sweep", note="A sweep.", tags={})
    plans = [PLAN, PLAN, PLAN.executed(40), replace(PLAN, unit=PrivacyUnit.EXAMPLE)]
    for plan in (*plans, None):
        child(store, parent, plan)
    costs = record_cost(store, parent)
    assert costs == choosing_costs([PrivateRun(guarantee=PrivacyGuarantee.of(plan, simulated=False)) for plan in plans])
    row = read_row(store, parent)
    assert row.metrics["privacy/epsilon_publish_all_user"] == costs[1].publish_all
    assert row.metrics["privacy/epsilon_publish_all_example"] == costs[0].publish_all
    assert len(row.metrics) == 2
    note = row.tags["mlflow.note.content"]
    assert note.startswith("A sweep.\n\n")
    assert "3 runs that protect users" in note
    assert rounded_up(costs[1].publish_all) in text_of(store, parent, tmp_path)


def test_a_child_without_guarantee_leaves_the_parent_without_bound(store: Store, tmp_path: Path) -> None:
    parent = start_sweep(store, name="sweep", note="", tags={})
    child(store, parent, PLAN)
    child(store, parent, PLAN, lost=True)
    assert record_cost(store, parent) == []
    assert read_row(store, parent).metrics == {}
    assert "|" not in text_of(store, parent, tmp_path)  # no table


def test_a_sweep_without_privacy_says_nothing_of_it(store: Store) -> None:
    parent = start_sweep(store, name="sweep", note="A sweep.", tags={})
    child(store, parent, None)
    assert record_cost(store, parent) == []
    assert read_row(store, parent).tags["mlflow.note.content"] == "A sweep."
    assert store.client.list_artifacts(parent) == []


@pytest.mark.parametrize(
    ("second", "bounded"),
    [
        ({"users": "0"}, True),
        ({"users": "0", "params": {"dataset.name": "digits", "features.name": "scattering"}}, True),
        ({"users": "1"}, False),
        ({"users": "0", "params": {"dataset.name": "adult"}}, False),
    ],
)
def test_users_are_the_same_only_where_data_and_partition_are(
    store: Store, second: dict[str, Any], bounded: bool, tmp_path: Path
) -> None:
    parent = start_sweep(store, name="sweep", note="", tags={})
    child(store, parent, PLAN, params={"dataset.name": "digits", "features.name": "none", "partition.name": "iid"})
    child(store, parent, PLAN, **({"params": {"dataset.name": "digits"}} | second))
    costs = record_cost(store, parent)
    row, refusal = read_row(store, parent), no_common_bound(costs)
    assert ("privacy/epsilon_publish_all" in row.metrics) is bounded
    texts = [row.tags["mlflow.note.content"], text_of(store, parent, tmp_path), " ".join(in_words(costs))]
    assert (refusal == "") is bounded
    assert all(refusal in text for text in texts)
    assert bool(row.metrics) is bounded


def test_natural_users_are_the_same_under_every_limit(store: Store) -> None:
    parent = start_sweep(store, name="sweep", note="", tags={})
    for users, limit in (("0", "100"), ("1", "200")):
        child(store, parent, PLAN, users=users, params={"partition.name": "natural", "dataset.limit": limit})
    (cost,) = record_cost(store, parent)
    assert cost.runs == 2
    assert cost.division is None
