"""What the accountants' disagreement means: an epsilon that is refuted, or a second opinion that is."""

from pipelines.core.errors import GuaranteeError
from pipelines.privacy.accounting.epsilon import AccountantResult
from pipelines.privacy.rounding import rounded_down, rounded_up

# PRV's upper bound lies at most 0.02 above the truth, by its own statement, at a delta that is 0.1 % off: the relative
# part covers what that does to epsilons in the hundreds.
PRV_TOLERANCE, PRV_RELATIVE = 0.02, 1e-4
RDP_TOLERANCE = 1e-3  # PLD's own discretisation error


def contradictions(found: tuple[AccountantResult, ...]) -> list[str]:
    """Where the accountants disagree by more than their stated errors; empty when all is well."""
    return [*refutations(found), *_harmless(found)]


def refutations(found: tuple[AccountantResult, ...]) -> list[str]:
    """Disagreements by which the first opinion, the guarantee's, could be too low; empty when none is.

    PRV answers with an upper bound that is tight to a stated error, so that an epsilon further below it than that is
    false, unless PRV is. RDP tells which: its upper bound is loose but rests on a proof of its own, so a PRV above it
    has failed, as Opacus' is known to at some values, and refutes nothing. An epsilon above RDP or PRV is not too low,
    and neither is one that nobody could check: those stay with `contradictions` and the accountant_results' remarks.
    """
    first, (rdp, prv) = found[0].epsilon, _second_opinions(found)
    assert first is not None
    if prv is None or prv - first <= _prv_error(first) or _prv_failed(rdp, prv):
        return []
    return [f"PLD {rounded_up(first, 6)} lies below PRV {rounded_down(prv, 6)} by more than their errors"]


def require_not_too_low(found: tuple[AccountantResult, ...]) -> None:
    """Refuses an epsilon that the second accountant_results refute.

    Raises:
      GuaranteeError: the first opinion could be too low.
    """
    if verdicts := refutations(found):
        raise GuaranteeError(f"the accountants contradict the epsilon ({'; '.join(verdicts)}): it could be too low")


def _harmless(found: tuple[AccountantResult, ...]) -> list[str]:
    """Disagreements in which the first opinion is the higher, or a second one is refuted by another."""
    first, (rdp, prv) = found[0].epsilon, _second_opinions(found)
    assert first is not None
    verdicts = []
    if rdp is not None and first > rdp + RDP_TOLERANCE:
        verdicts.append(f"PLD {rounded_up(first, 6)} exceeds its upper bound RDP {rounded_down(rdp, 6)}")
    if prv is not None and first - prv > _prv_error(first):
        verdicts.append(f"PLD {rounded_up(first, 6)} exceeds PRV {rounded_down(prv, 6)} by more than their errors")
    if prv is not None and prv - first > _prv_error(first) and _prv_failed(rdp, prv):
        assert rdp is not None, "it is RDP that refutes"
        bound = rounded_up(rdp, 6)
        verdicts.append(f"PRV {rounded_down(prv, 6)} exceeds the upper bound RDP {bound}, which refutes it")
    return verdicts


def _second_opinions(found: tuple[AccountantResult, ...]) -> tuple[float | None, float | None]:
    """RDP's and PRV's epsilon; None where there is no answer."""
    values = {opinion.accountant.split()[-1]: opinion.epsilon for opinion in found[1:]}
    return values.get("RDP"), values.get("PRV")


def _prv_error(epsilon: float) -> float:
    return PRV_TOLERANCE + PRV_RELATIVE * epsilon


def _prv_failed(rdp: float | None, prv: float) -> bool:
    return rdp is not None and prv > rdp + _prv_error(rdp)
