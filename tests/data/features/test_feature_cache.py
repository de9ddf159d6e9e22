"""Features are computed once, however often that is interrupted."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.core.errors import UserError
from pipelines.data.features import feature_cache as cache
from pipelines.data.features.feature_cache import cached_features

Floats = NDArray[np.float32]
INPUTS = np.arange(46, dtype=np.float32).reshape(23, 2)


class Compute:
    """Doubles and sums, counts the examples that it was given, and fails at an input of its choice."""

    def __init__(self, fail_at: float = np.inf) -> None:
        self.seen, self.fail_at = 0, fail_at

    def __call__(self, inputs: Floats) -> Floats:
        if (inputs >= self.fail_at).any():
            raise KeyboardInterrupt
        self.seen += len(inputs)
        return np.stack([2 * inputs, inputs + 1, 0 * inputs], axis=1)


EXPECTED = Compute()(INPUTS)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "PART", 4)


def features(path: Path, compute: Compute, threads: int = 1) -> Floats:
    return cached_features(path, INPUTS, compute, (3, 2), threads=threads, title="test")


@pytest.mark.parametrize("threads", [1, 3])
def test_features_are_computed_once_and_in_order(tmp_path: Path, threads: int) -> None:
    first, second = Compute(), Compute()
    path = tmp_path / "new folder" / "a.npy"
    assert np.array_equal(features(path, first, threads), EXPECTED)
    assert np.array_equal(features(path, second, threads), EXPECTED)
    assert (first.seen, second.seen) == (23, 0)
    assert [file.name for file in path.parent.iterdir()] == ["a.npy"]


@pytest.mark.parametrize("torn", [0, 5])
def test_an_interruption_loses_no_whole_example(tmp_path: Path, torn: int) -> None:
    path = tmp_path / "a.npy"
    with pytest.raises(KeyboardInterrupt):
        features(path, Compute(fail_at=20))  # in the third part of four
    assert not path.exists()
    part = path.with_suffix(".part")
    part.write_bytes(part.read_bytes()[: -torn or None])  # a machine that stopped in the middle of an example
    rest = Compute()
    assert np.array_equal(features(path, rest), EXPECTED)
    assert rest.seen == 23 - 8 + (torn > 0)


def test_changes_in_memory_never_reach_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    features(path, Compute())[:] = 7
    assert np.array_equal(features(path, Compute()), EXPECTED)


def test_processes_that_come_together_compute_once(tmp_path: Path) -> None:
    path, compute = tmp_path / "a.npy", Compute()
    with ThreadPoolExecutor(4) as pool:  # locks are of open files, so threads stand for processes
        found = list(pool.map(lambda _: features(path, compute), range(4)))
    assert all(np.array_equal(one, EXPECTED) for one in found)
    assert compute.seen == 23


def test_an_unwritable_folder_is_named_with_the_space_needed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"features cannot be kept in .*file.*PIPELINES_CACHE.* 0 MiB"):
        features(tmp_path / "file" / "a.npy", Compute())
