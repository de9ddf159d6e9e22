"""What a finished run guarantees: computed from the plan that ran, never from the one that was asked for."""

from dataclasses import asdict, dataclass
from typing import Any

from pipelines.privacy.accounting import Opinion, contradictions, opinions
from pipelines.privacy.plan import AdaptiveClipping, MechanismPlan, PrivacyUnit, Relation

SAMPLER = "poisson"


@dataclass(frozen=True, kw_only=True)
class PrivacyGuarantee:
    """An (epsilon, delta) guarantee with everything needed to check it.

    Attributes:
      epsilon: by the first opinion.
      executed: the plan with the steps that ran.
      opinions: every accountant's answer; the first is the guarantee's own.
      simulated: whether noise and sampling came from a known seed, so that nothing is protected from whoever knows it.
    """

    epsilon: float
    executed: MechanismPlan
    opinions: tuple[Opinion, ...]
    simulated: bool

    @classmethod
    def of(cls, executed: MechanismPlan, *, simulated: bool) -> "PrivacyGuarantee":
        """Accounts for a plan that ran."""
        found = opinions(executed)
        assert found[0].epsilon is not None
        return cls(epsilon=found[0].epsilon, executed=executed, opinions=found, simulated=simulated)

    @property
    def contradictions(self) -> list[str]:
        """Where the accountants disagree; empty when the epsilon is confirmed."""
        return contradictions(self.opinions)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for privacy.json; `from_dict` reads it back."""
        plan = self.executed
        return {
            "epsilon": self.epsilon,
            "delta": plan.delta,
            "unit": str(plan.unit),
            "relation": str(plan.relation),
            "population": plan.population,
            "sampler": SAMPLER,
            "sampling_probability": plan.sampling_probability,
            "steps": plan.steps,
            "noise_multiplier": plan.noise_multiplier,
            "clip_norm": plan.clip_norm,
            "adaptive_clipping": None if plan.adaptive is None else asdict(plan.adaptive),
            "normaliser": plan.normaliser,
            "simulated": self.simulated,
            "accountants": [asdict(opinion) for opinion in self.opinions],
            "contradictions": self.contradictions,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "PrivacyGuarantee":
        """Reads what `to_dict` wrote."""
        adaptive = values["adaptive_clipping"]
        executed = MechanismPlan(
            unit=PrivacyUnit(values["unit"]),
            relation=Relation(values["relation"]),
            population=values["population"],
            sampling_probability=values["sampling_probability"],
            steps=values["steps"],
            noise_multiplier=values["noise_multiplier"],
            clip_norm=values["clip_norm"],
            delta=values["delta"],
            adaptive=None if adaptive is None else AdaptiveClipping(**adaptive),
        )
        return cls(
            epsilon=values["epsilon"],
            executed=executed,
            opinions=tuple(Opinion(**opinion) for opinion in values["accountants"]),
            simulated=values["simulated"],
        )
