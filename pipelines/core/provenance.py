"""Where a result comes from: commit, lock, versions and fingerprints."""

import hashlib
import platform
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

from pipelines.core.paths import REPOSITORY

PACKAGES = ("torch", "opacus", "tensorflow", "tensorflow-federated", "dp-accounting", "numpy", "hydra-core")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a result comes from.

    Attributes:
      commit: git commit, with "-dirty" if tracked files had changes; "unknown" outside a checkout.
      lock_sha256: of requirements.lock; "unknown" if there is none.
      data_sha256, partition_sha256, config_sha256: fingerprints. Those of the user's own data and of its partition
        depend on a key of this machine. The partition's is None if the data is not divided.
      seed: the public seed.
      versions: of the packages that decide the numbers, and of Python.
    """

    commit: str
    lock_sha256: str
    data_sha256: str
    partition_sha256: str | None
    config_sha256: str
    seed: int
    versions: dict[str, str]


@lru_cache(maxsize=1)
def source_commit() -> str:
    """Returns the checkout's commit, marked "-dirty" if tracked files differ from it."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


@lru_cache(maxsize=1)
def lock_sha256() -> str:
    """Returns the fingerprint of requirements.lock."""
    lock = REPOSITORY / "requirements.lock"
    return hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else "unknown"


def installed_versions(*others: str) -> dict[str, str]:
    """Returns the versions that decide the numbers, and those of other packages that are installed."""
    return dict(_installed_versions(others))


@lru_cache(maxsize=1)
def _installed_versions(others: tuple[str, ...]) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in (*PACKAGES, *others):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
