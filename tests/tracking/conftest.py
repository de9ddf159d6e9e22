"""A store per test, copied from one migrated database: a migration takes longer than the test."""

import shutil
from pathlib import Path

import pytest

from pipelines.tracking.store import Store, open_store


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    database = tmp_path_factory.mktemp("template") / "mlflow.db"
    open_store(f"sqlite:///{database}", "template")
    return database


@pytest.fixture
def uri(migrated_database: Path, tmp_path: Path) -> str:
    shutil.copy(migrated_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def store(uri: str) -> Store:
    return open_store(uri, "digits")
