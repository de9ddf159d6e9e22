from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.tracking.listeners import open_run, reopen
from pipelines.tracking.parent_run import finish_sweep, start_sweep
from pipelines.tracking.read import read_rows
from pipelines.tracking.run_log import RunStart
from pipelines.tracking.store import Store


def start(store: Store) -> str:
    return start_sweep(store, name="digits frontier", note="Four pipelines.", tags={"dataset": "digits"})


def child(store: Store, parent_id: str, error: Exception | None = None) -> str:
    try:
        with open_run(store, RunStart(name="child", params={"seed": 1}, parent_id=parent_id)) as log:
            log.on_metrics(1, {"test/accuracy": 0.5})
            if error:
                raise error
    except ValueError:
        pass
    return log.run_id


def test_children_are_nested_and_read_by_parent(store: Store) -> None:
    parent = start(store)
    children = [child(store, parent), child(store, parent)]
    with open_run(store, RunStart(name="alone")):
        pass
    assert finish_sweep(store, parent) == "FINISHED"
    assert [row.run_id for row in read_rows(store, parent_id=parent)] == children
    assert len(read_rows(store)) == 4
    row = read_rows(store, parent_id=parent)[0]
    assert (row.status, row.params["seed"], row.metrics["test/accuracy"]) == ("FINISHED", "1", 0.5)


def test_failed_child_fails_the_sweep(store: Store) -> None:
    parent = start(store)
    child(store, parent)
    child(store, parent, ValueError("boom"))
    assert finish_sweep(store, parent) == "FAILED"
    assert store.client.get_run(parent).info.status == "FAILED"


def test_job_that_failed_before_its_run_fails_the_sweep(store: Store) -> None:
    assert finish_sweep(store, start(store), outcome="failed") == "FAILED"


def test_interruption_kills_the_sweep(store: Store) -> None:
    parent = start(store)
    child(store, parent)
    assert finish_sweep(store, parent, outcome="interrupted") == "KILLED"


def test_child_whose_process_died_is_not_left_running(store: Store) -> None:
    parent = start(store)
    orphan = store.client.create_run(store.experiment_id, tags={"mlflow.parentRunId": parent}).info.run_id
    assert finish_sweep(store, parent) == "FAILED"
    assert store.client.get_run(orphan).info.status == "KILLED"


def test_folder_becomes_artifacts_of_the_parent(store: Store, tmp_path: Path) -> None:
    parent = start(store)
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "frontier.csv").write_text("a\n")
    reopen(store, parent).on_artifact("frontier", folder)
    assert [item.path for item in store.client.list_artifacts(parent, "frontier")] == ["frontier/frontier.csv"]


def test_unknown_parent_is_named(store: Store) -> None:
    with pytest.raises(UserError, match="run 0123 is not in"):
        read_rows(store, parent_id="0123")
