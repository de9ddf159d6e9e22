"""What the log says of the user's own data tells equal data on this machine, and answers no guess."""

import hashlib
import json
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.core import fingerprint
from pipelines.core.errors import UserError
from pipelines.core.paths import REPOSITORY
from pipelines.data.dataset import Dataset
from pipelines.data.digits import load_digits
from pipelines.data.npz import load_npz
from pipelines.data.partition.division import Partition
from pipelines.data.split import Split
from tests.conftest import Cli


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    fingerprint._key.cache_clear()
    monkeypatch.setenv("PIPELINES_CACHE", str(tmp_path))
    return tmp_path


def own() -> Dataset:
    split = Split(np.eye(4, dtype=np.float32), np.array([0, 1, 0, 1]))
    return Dataset(name="own", train=split, test=split, classes=2)


def forget() -> None:
    fingerprint._key.cache_clear()


def test_own_data_are_marked_alike_until_the_key_changes() -> None:
    first = own().fingerprint
    forget()
    assert own().fingerprint == first
    fingerprint.key_file().unlink()
    forget()
    assert own().fingerprint != first


def test_public_data_keep_their_plain_fingerprint() -> None:
    digits = load_digits()
    assert digits.fingerprint == "8492c3842093b8080453b7c2d7c79bed51db00c49f362bafe9b2ef30c009ab30"
    assert replace(own(), public=True).fingerprint != own().fingerprint
    assert digits.mark("partition") == "partition"
    assert own().mark("partition") not in ("partition", hashlib.sha256(b"partition").hexdigest())


def test_only_the_owner_can_read_the_key(cache: Path) -> None:
    _ = own().fingerprint
    (file,) = (cache / "keys").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    forget()
    with pytest.raises(UserError, match=r"fingerprint-\d+\.key is not a key that only you can read; delete it"):
        _ = own().fingerprint


def test_processes_that_start_together_share_one_key(cache: Path) -> None:
    code = "from pipelines.core.fingerprint import keyed; print(keyed('x'))"
    started = [
        subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert len({process.communicate()[0] for process in started}) == 1
    assert len(list((cache / "keys").iterdir())) == 1


def test_an_unwritable_cache_leaves_a_key_of_the_process(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "file").write_text("")
    monkeypatch.setenv("PIPELINES_CACHE", str(cache / "file"))
    assert fingerprint.keyed("x") == fingerprint.keyed("x")
    forget()


def test_nothing_logged_holds_a_plain_fingerprint_of_own_data(cli: Cli, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {"x_train": rng.random((40, 3)), "y_train": np.arange(40) % 2, "x_test": rng.random((20, 3))}
    np.savez(tmp_path / "mine.npz", **arrays, y_test=np.arange(20) % 2, classes=2, client_ids=np.arange(40) // 4)
    done = cli(
        "dataset=npz", f"dataset.file={tmp_path / 'mine.npz'}", "pipeline=dp_sgd_users", "partition=natural",
        "pipeline.batch_size=5", "pipeline.epochs=1", "privacy.noise_multiplier=2", "privacy.delta=1e-3",
        "model=linear", "evaluations=1",
    )  # fmt: skip
    assert done.code == 0, done.err
    (row,) = done.rows
    dataset = load_npz(str(tmp_path / "mine.npz"))
    users = Partition.from_owners(np.arange(40) // 4, 10).fingerprint
    logged = [json.dumps([row.tags, row.params]).encode(), *(file.read_bytes() for file in tmp_path.rglob("*.json"))]
    for plain in (replace(dataset, public=True).fingerprint, users):
        assert not any(plain[:16].encode() in text for text in [*logged, (tmp_path / "runs.db").read_bytes()])
    assert (row.tags["data.sha256"], row.tags["partition.sha256"]) == (dataset.fingerprint, dataset.mark(users))
    assert len(logged) > 1
