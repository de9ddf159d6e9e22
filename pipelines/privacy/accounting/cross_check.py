"""What a disagreement of the accountants means: it refutes the guarantee's epsilon, or another accountant's."""

from pipelines.core.errors import GuaranteeError
from pipelines.privacy.accounting.epsilon import AccountantResult
from pipelines.privacy.rounding import rounded_down, rounded_up

# PRV states that its upper bound lies at most 0.02 above the true epsilon, at a delta that is 0.1 % off. The relative
# part covers the effect of that delta on epsilons in the hundreds.
PRV_TOLERANCE, PRV_RELATIVE = 0.02, 1e-4
RDP_TOLERANCE = 1e-3  # PLD's own discretisation error


def contradictions(found: tuple[AccountantResult, ...]) -> list[str]:
    """Disagreements of the accountants beyond their stated errors; empty if there is none."""
    return [*refutations(found), *_harmless(found)]


def refutations(found: tuple[AccountantResult, ...]) -> list[str]:
    """Disagreements that could make the first epsilon, that of the guarantee, too low; empty if there is none.

    PRV gives an upper bound that is tight up to a stated error. If the guarantee's epsilon is lower than PRV by more
    than this error, one of the two is false. RDP decides: its upper bound is loose, but it has an independent proof. A
    PRV above RDP has failed and refutes nothing; Opacus' PRV is known to fail at some values. An epsilon above RDP or
    PRV is not too low; it appears in `contradictions`. If no other accountant answered, its result says so in `remark`.
    """
    first, (rdp, prv) = found[0].epsilon, _second_opinions(found)
    assert first is not None
    if prv is None or prv - first <= _prv_error(first) or _prv_failed(rdp, prv):
        return []
    return [f"PLD {rounded_up(first, 6)} lies below PRV {rounded_down(prv, 6)} by more than their errors"]


def require_not_too_low(found: tuple[AccountantResult, ...]) -> None:
    """Refuses an epsilon that the other accountants refute.

    Raises:
      GuaranteeError: the first epsilon could be too low.
    """
    if verdicts := refutations(found):
        raise GuaranteeError(
            f"the accountants contradict the epsilon ({'; '.join(verdicts)}): it could be too low; report this bug"
        )


def _harmless(found: tuple[AccountantResult, ...]) -> list[str]:
    """Disagreements in which the first epsilon is higher, or RDP refutes PRV."""
    first, (rdp, prv) = found[0].epsilon, _second_opinions(found)
    assert first is not None
    verdicts = []
    if rdp is not None and first > rdp + RDP_TOLERANCE:
        verdicts.append(f"PLD {rounded_up(first, 6)} exceeds its upper bound RDP {rounded_down(rdp, 6)}")
    if prv is not None and first - prv > _prv_error(first):
        verdicts.append(f"PLD {rounded_up(first, 6)} exceeds PRV {rounded_down(prv, 6)} by more than their errors")
    if prv is not None and prv - first > _prv_error(first) and _prv_failed(rdp, prv):
        assert rdp is not None, "RDP refutes PRV"
        bound = rounded_up(rdp, 6)
        verdicts.append(f"PRV {rounded_down(prv, 6)} exceeds the upper bound RDP {bound}, which refutes it")
    return verdicts


def _second_opinions(found: tuple[AccountantResult, ...]) -> tuple[float | None, float | None]:
    """Epsilons of RDP and of PRV; None if there is no answer."""
    values = {opinion.accountant.split()[-1]: opinion.epsilon for opinion in found[1:]}
    return values.get("RDP"), values.get("PRV")


def _prv_error(epsilon: float) -> float:
    return PRV_TOLERANCE + PRV_RELATIVE * epsilon


def _prv_failed(rdp: float | None, prv: float) -> bool:
    return rdp is not None and prv > rdp + _prv_error(rdp)
