"""A store per test, copied from one migrated database."""

import shutil
from pathlib import Path

import pytest

from pipelines.tracking.store import Store, open_store


@pytest.fixture
def uri(migrated_database: Path, tmp_path: Path) -> str:
    shutil.copy(migrated_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def store(uri: str) -> Store:
    return open_store(uri, "digits")
