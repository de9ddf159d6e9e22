"""The result of one run, with what is needed to repeat it."""

from dataclasses import asdict, dataclass
from typing import Any

from pipelines.auditing.finding import Finding, Membership
from pipelines.core.provenance import Provenance
from pipelines.engines.evaluation import Evaluation
from pipelines.privacy.guarantee import PrivacyGuarantee


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The result of a run.

    Attributes:
      evaluation: on the test split.
      guarantee: None, never 0 or infinity, if the run is not private.
      provenance: where the result comes from.
      audit: None if the run was not audited.
    """

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
