"""The file that is checked, locked, used and printed is the same one for any name."""

import os
import sqlite3
from pathlib import Path

import mlflow
import pytest

from pipelines.core.errors import UserError
from pipelines.tracking.address import address_of, database_of, resolve_uri
from pipelines.tracking.listeners import open_run
from pipelines.tracking.read import read_rows, read_text
from pipelines.tracking.run_log import RunStart
from pipelines.tracking.store import open_store, viewer

NAMES = (
    "feature%2Fx", "a%20b", "100%", "%", "%%41", "what?", "a#b", "two words", "Kühe 牛", "it's", 'say "so"', "$HOME",
    "a+b", "a&b=c", "[x]", "back\\slash", "~tilde", "a:b@c",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_found_by_its_printed_address(name: str, tmp_path: Path, migrated_database: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    store = open_store(f"sqlite:///{folder}/runs.db", "tests")
    with open_run(store, RunStart(name="a")) as log:
        log.on_artifact("note.txt", "here")
    assert {path.name for path in folder.iterdir()} == {"runs.db", "runs.db.lock", "runs.db.reserve", "mlartifacts"}
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with sqlite3.connect(folder / "runs.db") as connection:
        assert connection.execute("select run_uuid from runs").fetchall() == [(log.run_id,)]
    again = open_store(store.uri, "tests", create=False)  # as another process gets it
    assert again.uri == store.uri
    assert read_text(again, log.run_id, "note.txt") == "here"
    assert mlflow.MlflowClient(store.uri).get_run(log.run_id).info.status == "FINISHED"  # and MLflow itself
    assert len(read_rows(again)) == 1


@pytest.mark.parametrize("name", NAMES)
def test_address_and_file_are_inverse(name: str) -> None:
    path = Path("/", name, "runs.db")
    assert database_of(address_of(path)) == path


def test_a_missing_folder_is_made_as_it_is_written(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/a%20b/c%2Fd/runs.db", "tests")
    assert (tmp_path / "a%20b" / "c%2Fd" / "runs.db").exists()
    assert os.listdir(tmp_path) == ["a%20b"]
    assert database_of(store.uri) == tmp_path / "a%20b" / "c%2Fd" / "runs.db"


def test_a_relative_path_counts_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "50%25").mkdir()
    monkeypatch.chdir(tmp_path / "50%25")
    assert database_of(resolve_uri("sqlite:///runs.db")) == tmp_path / "50%25" / "runs.db"


@pytest.mark.parametrize(
    ("uri", "field"),
    [
        ("sqlite:///:memory:", "would be gone"),
        ("sqlite:///runs/", "sqlite:///runs/runs.db"),
        ("sqlite:///runs.db?timeout=3", r"options after \?"),
        ("sqlite:///\udcff.db", "not a path"),
        ("sqlite://", "not a database"),
    ],
)
def test_an_address_that_is_no_file_is_refused(uri: str, field: str) -> None:
    with pytest.raises(UserError, match=field):
        resolve_uri(uri)


def test_the_way_to_look_is_that_of_the_store(tmp_path: Path) -> None:
    assert viewer(resolve_uri(None)).startswith("make ui")
    assert viewer("http://127.0.0.1:5000") == "http://127.0.0.1:5000"
    assert f"'sqlite:///{tmp_path}/a b%25.db'" in viewer(address_of(tmp_path / "a b%.db"))
