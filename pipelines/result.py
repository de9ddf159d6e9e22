"""What one run found out, with what is needed to find it out again."""

import hashlib
import platform
import subprocess
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.audit.finding import Finding, Membership
from pipelines.checkout import REPOSITORY
from pipelines.pipeline import Labels, Logits
from pipelines.privacy.guarantee import PrivacyGuarantee

PACKAGES = ("torch", "opacus", "tensorflow", "tensorflow-federated", "dp-accounting", "numpy", "mlflow", "hydra-core")


@dataclass(frozen=True)
class Evaluation:
    """How a model does on the test split.

    Attributes:
      accuracy: share of correct predictions, in [0, 1].
      loss: mean cross-entropy in nats; not finite when logits are not.
    """

    accuracy: float
    loss: float


def cross_entropies(logits: NDArray[np.floating], labels: Labels) -> NDArray[np.float64]:
    """Cross-entropy of each example in nats, shape (n,), from logits, shape (n, classes), and labels, shape (n,)."""
    logits = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):  # the loss of a model that diverged is NaN, which its caller looks for
        shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels])


def score(logits: Logits, labels: Labels) -> Evaluation:
    """Accuracy and cross-entropy of logits, shape (n, classes), for labels, shape (n,)."""
    return Evaluation(
        accuracy=float(np.mean(logits.argmax(axis=1) == labels)),
        loss=float(cross_entropies(logits, labels).mean()),
    )


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a result comes from.

    Attributes:
      commit: git commit, with "-dirty" if tracked files had changes; "unknown" outside a checkout.
      lock_sha256: of requirements.lock; "unknown" where there is none.
      data_sha256, partition_sha256, config_sha256: fingerprints, of own data and their partition under a key of this
        machine; no partition in a central pipeline.
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


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The end of a run; `guarantee` is None, never 0 or infinity, where nothing is private, and `audit` without one."""

    evaluation: Evaluation
    guarantee: PrivacyGuarantee | None
    provenance: Provenance
    audit: Finding | Membership | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for result.json; `from_dict` reads it back."""
        return {
            "evaluation": asdict(self.evaluation),
            "guarantee": None if self.guarantee is None else self.guarantee.to_dict(),
            "provenance": asdict(self.provenance),
            "audit": None if self.audit is None else self.audit.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunResult":
        """Reads what `to_dict` wrote."""
        guarantee, audit = values["guarantee"], values.get("audit")
        return cls(
            evaluation=Evaluation(**values["evaluation"]),
            guarantee=None if guarantee is None else PrivacyGuarantee.from_dict(guarantee),
            provenance=Provenance(**values["provenance"]),
            audit=None if audit is None else _audit_from(audit),
        )


def _audit_from(values: dict[str, Any]) -> Finding | Membership:
    return (Membership if values["audit"] == "membership" else Finding).from_dict(values)


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


def installed_versions() -> dict[str, str]:
    """Returns the versions that decide the numbers."""
    return dict(_installed_versions())


@lru_cache(maxsize=1)
def _installed_versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
