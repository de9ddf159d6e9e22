"""What a finished run guarantees, computed from the plan that ran, never from the plan that was requested."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.privacy.accounting.cross_check import contradictions, require_not_too_low
from pipelines.privacy.accounting.epsilon import AccountantResult, accountant_results
from pipelines.privacy.mechanisms.base import Mechanism
from pipelines.privacy.mechanisms.planning import mechanism_from


@dataclass(frozen=True, kw_only=True)
class PrivacyGuarantee:
    """An (epsilon, delta) guarantee with everything needed to check it.

    Attributes:
      epsilon: of the first accountant.
      executed: the plan with the steps that ran.
      accountant_results: every accountant's answer; the first is the guarantee's own.
      simulated: whether noise and sampling came from a known seed; then nothing is protected from those who know it.
      secure_aggregation: whether the server received only sums, by a protocol that is simulated.
    """

    epsilon: float
    executed: Mechanism
    accountant_results: tuple[AccountantResult, ...]
    simulated: bool
    secure_aggregation: bool = False

    @classmethod
    def of(cls, executed: Mechanism, *, simulated: bool, secure_aggregation: bool = False) -> "PrivacyGuarantee":
        """Accounts for a plan that ran.

        Raises:
          GuaranteeError: the accountants disagree, and the epsilon could be too low.
        """
        found = accountant_results(executed)
        require_not_too_low(found)
        assert found[0].epsilon is not None
        return cls(
            epsilon=found[0].epsilon,
            executed=executed,
            accountant_results=found,
            simulated=simulated,
            secure_aggregation=secure_aggregation,
        )

    @property
    def contradictions(self) -> list[str]:
        """Disagreements of the accountants that do not make the epsilon too low; mostly empty."""
        return contradictions(self.accountant_results)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for privacy.json; `from_dict` reads it back."""
        plan = self.executed
        return {
            "epsilon": self.epsilon,
            "delta": plan.delta,
            "unit": str(plan.unit),
            "relation": str(plan.relation),
            "population": plan.population,
            **plan.schedule(),
            "steps": plan.steps,
            "noise_multiplier": plan.noise_multiplier,
            "clip_norm": plan.clip_norm,
            "expected_batch_size": plan.expected_batch_size,
            "simulated": self.simulated,
            "secure_aggregation": self.secure_aggregation,
            "accountants": [asdict(opinion) for opinion in self.accountant_results],
            "contradictions": self.contradictions,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "PrivacyGuarantee":
        """Reads what `to_dict` wrote, and older files, which know only the Gaussian mechanism."""
        values = in_todays_words(values)
        return cls(
            epsilon=values["epsilon"],
            executed=mechanism_from(values),
            accountant_results=tuple(AccountantResult(**opinion) for opinion in values["accountants"]),
            simulated=values["simulated"],
            secure_aggregation=values.get("secure_aggregation", False),
        )


RENAMED = {"normaliser": "expected_batch_size"}
"""Keys of older files, with today's names."""


def in_todays_words(values: Mapping[str, Any]) -> dict[str, Any]:
    """A written guarantee with today's keys; older releases wrote other ones."""
    return {RENAMED.get(key, key): value for key, value in values.items()}
