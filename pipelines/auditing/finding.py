"""The result of an audit, and the error that ends a run whose claim it refutes."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pipelines.core.errors import GuaranteeError
from pipelines.privacy.rounding import rounded_apart, rounded_down, rounded_up

ASSUMES = {
    "mechanism": "the sampling or turns of the plan, Gaussian noise of one standard deviation, and the composition of "
    "the accountant. The bound is measured on a linear problem. Contributions and noise are also measured on the run's "
    "own model. The run's engine trains both with the run's plan.",
    "one_run": "canaries included by independent fair coins; nothing about the mechanism",
    "canary_clients": "canaries included by independent fair coins; nothing about the mechanism",
}
"""Assumptions of a lower bound."""
RATES = {"0.1pct": 0.001, "1pct": 0.01}
"""False positive rates at which membership inference is measured, by name."""


def percent(rate: float) -> str:
    """A rate to three digits, such as "12.3 %"; never with an exponent from 0.1 % up."""
    return f"{100 * rate:.3g} %"


class AuditError(GuaranteeError):
    """An audit contradicts what a run claims."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one audit.

    Attributes:
      audit: mechanism, one_run or canary_clients.
      claim: the guarantee's epsilon; None if nothing is claimed.
      epsilon_lower_bound: exceeds the true epsilon with probability at most 1 - confidence.
      epsilon_estimate: a best guess without a confidence; None if there are too few data for it.
      confidence: of the lower bound.
      faults: in words, every contradiction to the plan, even if the epsilon holds; empty if there is none.
      evidence: the measurements behind the numbers, as plain data.
    """

    audit: str
    claim: float | None
    epsilon_lower_bound: float
    epsilon_estimate: float | None
    confidence: float
    faults: tuple[str, ...] = ()
    evidence: dict[str, Any] = field(default_factory=dict)

    @property
    def consistent(self) -> bool:
        """Whether all measurements agree with the plan."""
        return not self.faults

    @property
    def refuted(self) -> bool:
        """Whether the lower bound lies above the claim."""
        return self.claim is not None and self.epsilon_lower_bound > self.claim

    def require(self) -> None:
        """Refuses a run that its audit contradicts.

        Raises:
          AuditError: the lower bound exceeds the claim, or the mechanism differs from the plan.
        """
        reasons = list(self.faults)
        if self.refuted:
            assert self.claim is not None, "only a claim can be refuted"
            claim, bound = rounded_apart(self.claim, self.epsilon_lower_bound)
            reasons.insert(
                0,
                f"epsilon is at least {bound} with {100 * self.confidence:g} % confidence, but {claim} is claimed",
            )
        if reasons:
            raise AuditError(f"audit={self.audit} REFUTES THIS RUN: {'; '.join(reasons)}; do not release its model")

    def metrics(self) -> dict[str, float]:
        """The numbers for the log, without the estimate if there is none."""
        values = {"audit/epsilon_lower_bound": self.epsilon_lower_bound, "audit/confidence": self.confidence}
        return values if self.epsilon_estimate is None else {**values, "audit/epsilon_estimate": self.epsilon_estimate}

    def summary(self) -> str:
        """One line for the terminal."""
        estimate = "" if self.epsilon_estimate is None else f", estimated {self.epsilon_estimate:.3g}"
        bound = f"epsilon at least {rounded_down(self.epsilon_lower_bound, 3)} ({100 * self.confidence:g} %){estimate}"
        if not self.evidence.get("bound_resolved", True):
            bound = "no bound at this noise multiplier; contributions and noise agree with the plan"
        return f"audit={self.audit}: {bound}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for audit.json."""
        return {
            "audit": self.audit,
            "claim": self.claim,
            "epsilon_lower_bound": self.epsilon_lower_bound,
            "epsilon_estimate": self.epsilon_estimate,
            "confidence": self.confidence,
            "assumes": ASSUMES[self.audit],
            "refuted": self.refuted,
            "faults": list(self.faults),
            "evidence": self.evidence,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Finding":
        """Reads what `to_dict` wrote."""
        own = {key: value for key, value in values.items() if key not in ("assumes", "refuted")}
        return cls(**{**own, "faults": tuple(values["faults"])})


@dataclass(frozen=True, kw_only=True)
class Membership:
    """The result of membership inference on one run.

    Attributes:
      pipeline, model, dataset, seed: of the run.
      unit, epsilon, delta: of its guarantee; None if there is none.
      true_positive: true positive rates at the false positive rates of `RATES`, by name; None if the test split has too
        few examples to measure that false positive rate.
    """

    pipeline: str
    model: str
    dataset: str
    seed: int
    unit: str | None
    epsilon: float | None
    delta: float | None
    true_positive: dict[str, float | None]

    @property
    def claim(self) -> tuple[float, float] | None:
        """Epsilon and delta if examples are protected; a user-level epsilon bounds a different test."""
        if self.epsilon is None or self.delta is None or self.unit != "example":
            return None
        return self.epsilon, self.delta

    @property
    def label(self) -> str:
        """The run without its seed."""
        what = f"{self.pipeline} {self.model} on {self.dataset}"
        if self.epsilon is None:
            return f"{what}, no privacy"
        return f"{what}, ε = {rounded_up(self.epsilon)} a{'n' if self.unit == 'example' else ''} {self.unit}"

    def metrics(self) -> dict[str, float]:
        """The numbers for the log, which no epsilon covers."""
        known = {name: rate for name, rate in self.true_positive.items() if rate is not None}
        return {f"diagnostics/membership_tpr_at_{name}_fpr": rate for name, rate in known.items()}

    def summary(self) -> str:
        """One line for the terminal."""
        known = [(rate, self.true_positive[name]) for name, rate in RATES.items()]
        found = [f"{percent(true)} at {percent(rate)} FPR" for rate, true in known if true is not None]
        missing = [f"{round(1 / rate):,} for {percent(rate)}" for rate, true in known if true is None]
        told = [f"TPR {', '.join(found)}"] if found else []
        few = [f"too few test examples ({', '.join(missing)} FPR are needed)"] if missing else []
        return f"audit=membership: {'; '.join([*told, *few])}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for result.json and, with the curve, membership.json."""
        return {"audit": "membership", **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Membership":
        """Reads what `to_dict` wrote."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})
