"""Recomputes a written guarantee from its plan, as a third party would, without training."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from math import isclose, isfinite
from typing import Any

from pipelines.core.errors import UserError
from pipelines.privacy.accounting.cross_check import PRV_TOLERANCE, RDP_TOLERANCE, refutations
from pipelines.privacy.accounting.epsilon import (
    NOT_INSTALLED,
    TOO_SLOW,
    UNKNOWN,
    AccountantResult,
    accountant_results,
    loss_interval,
    rdp_epsilon,
)
from pipelines.privacy.guarantee import PrivacyGuarantee, in_todays_words
from pipelines.privacy.mechanisms.base import Mechanism
from pipelines.privacy.mechanisms.planning import KINDS
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism

ROUNDING = 1e-6
"""Tolerance for the same library on another machine: absolute for an epsilon of at most 1, relative above."""
MOST_STEPS = 10**7
"""No training has more steps. Without this limit a file could keep its reader busy for days."""
MOST_POINTS = 3e7
"""Largest number of grid points of a discretised privacy loss that is still fast to compose."""
NUMBER, WHOLE, WORD = "a finite number", "a whole number", "a text"
TYPES = {
    "epsilon": NUMBER, "delta": NUMBER, "unit": WORD, "relation": WORD, "population": WHOLE, "sampler": WORD,
    "steps": WHOLE, "noise_multiplier": NUMBER, "clip_norm": NUMBER,
    "expected_batch_size": NUMBER, "simulated": "true or false", "accountants": "a list", "contradictions": "a list",
}  # fmt: skip
LATER = {"mechanism", "secure_aggregation"}
"""Keys that older files do not have."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One accountant's epsilon, as written and as computed here.

    Attributes:
      written: the result in the file; None if it is missing.
      here: the result computed here; its epsilon is None if the accountant gave no answer.
      remark: that they agree, the difference between versions, or the reason why nothing was compared.
      agrees: False only if two numbers, or a number and its absence, contradict each other.
    """

    written: AccountantResult | None
    here: AccountantResult
    remark: str
    agrees: bool


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The result of checking a guarantee.

    Attributes:
      guarantee: as written.
      comparisons: one for each accountant.
      objections: why the guarantee does not hold; empty if it holds.
    """

    guarantee: PrivacyGuarantee
    comparisons: tuple[Comparison, ...]
    objections: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether every written value follows from the written plan."""
        return not self.objections


def verify_guarantee(values: Any) -> Verification:
    """Recomputes every accountant from the plan in `values`, and looks for contradictions.

    Args:
      values: content of privacy.json.

    Raises:
      UserError: this is not a guarantee: a key is missing, of the wrong type or out of range.
    """
    values = in_todays_words(values) if isinstance(values, Mapping) else values
    guarantee = _read(values)
    here = _recompute(guarantee.executed)
    comparisons = tuple(
        _compare(_written(guarantee, opinion.accountant), opinion, claimed=opinion is here[0]) for opinion in here
    )
    objections = _inconsistencies(values, guarantee)
    objections += [f"{item.here.accountant}: {item.remark}" for item in comparisons if not item.agrees]
    objections += [f"recomputed here, {verdict}" for verdict in refutations(here)]
    names = [opinion.accountant for opinion in here]
    if [opinion.accountant for opinion in guarantee.accountant_results] != names:
        objections.append(f"the accountants must be {', '.join(names)}, in this order")
    return Verification(guarantee=guarantee, comparisons=comparisons, objections=tuple(objections))


def _recompute(plan: Mechanism) -> tuple[AccountantResult, ...]:
    """Results of every accountant for a plan from an untrusted file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # absurd numbers overflow; the result is checked below
            if plan.steps and plan.noise_multiplier > 0 and (known := plan.composition) is not None:
                grid = loss_interval(known.noise_multiplier, known.sampling_probability)
                if not rdp_epsilon(plan) < MOST_POINTS * grid:
                    raise UserError("the plan's epsilon is too large to recompute; such a plan protects nothing")
            return accountant_results(plan)
    except UserError:
        raise
    except Exception as error:  # libraries raise many kinds of errors for absurd numbers
        raise UserError(f"the accountants have no answer for this plan: {' '.join(str(error).split())}") from None


def _read(values: Any) -> PrivacyGuarantee:
    """Checks the types of all values, and builds the guarantee."""
    if not isinstance(values, Mapping):
        raise UserError("a guarantee must be a JSON object with epsilon, delta, unit and more")
    mechanism = values.get("mechanism", PoissonGaussianMechanism.name)
    if mechanism not in KINDS:
        raise UserError(f"mechanism={str(mechanism)[:60]!r} is none of {', '.join(KINDS)}")
    for key, kind in {**TYPES, **KINDS[mechanism].SCHEDULE}.items():
        if key not in values:
            raise UserError(f"the guarantee has no {key}; without it nothing can be recomputed")
        _require(key, values[key], kind)
    if values["steps"] > MOST_STEPS:
        raise UserError(f"steps={values['steps']} is more than any training takes ({MOST_STEPS:,})")
    for item in values["accountants"]:
        _require_opinion(item)
    if not values["accountants"] or values["accountants"][0]["epsilon"] is None:
        raise UserError("accountants: the first one must have an epsilon, which is the guarantee's")
    try:
        return PrivacyGuarantee.from_dict(dict(values))
    except KeyError as error:
        raise UserError(f"the guarantee has no {error.args[0]}; without it nothing can be recomputed") from None
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(f"the guarantee is malformed: {' '.join(str(error).split())}") from None


def _require_opinion(item: Any) -> None:
    if not isinstance(item, Mapping) or not {"accountant", "version", "epsilon"} <= set(item):
        raise UserError("accountants: each needs accountant, version and epsilon")
    _require("accountants.accountant", item["accountant"], WORD)
    _require("accountants.version", item["version"], WORD)
    if item["epsilon"] is not None:
        _require("accountants.epsilon", item["epsilon"], NUMBER)


def _require(key: str, value: Any, kind: str) -> None:
    """Raises UserError unless the value is of its kind; true is not a number here."""
    match kind:
        case "a finite number":
            fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
        case "a whole number":
            fits = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
        case "a text":
            fits = isinstance(value, str)
        case "a list":
            fits = isinstance(value, list)
        case _:
            fits = isinstance(value, bool)
    if not fits:
        raise UserError(f"{key}={str(value)[:60]!r} must be {kind}")


def _inconsistencies(values: Mapping[str, Any], guarantee: PrivacyGuarantee) -> list[str]:
    """Written values that differ from the values implied by the plan and the accountants' results."""
    implied, found = guarantee.to_dict(), []
    for key in [*implied, *(key for key in values if key not in implied)]:
        if key not in implied:
            found.append(f"{key} is not part of a guarantee")
        elif key not in values:
            found += [] if key in LATER else [f"{key} is missing"]
        elif not _same(values[key], implied[key]):
            found.append(f"{key} is {values[key]!r}, but {implied[key]!r} follows from the other values")
    first = guarantee.accountant_results[0] if guarantee.accountant_results else None
    if first is None or first.epsilon != guarantee.epsilon:
        stated = "there is none" if first is None else f"{first.accountant} has {first.epsilon}"
        found.append(f"epsilon {guarantee.epsilon} is not that of the first accountant ({stated})")
    return found


def _same(written: Any, implied: Any) -> bool:
    if isinstance(written, float) and isinstance(implied, float):
        return isclose(written, implied, rel_tol=1e-9)
    return bool(written == implied)


def _written(guarantee: PrivacyGuarantee, accountant: str) -> AccountantResult | None:
    return next((opinion for opinion in guarantee.accountant_results if opinion.accountant == accountant), None)


def _compare(written: AccountantResult | None, here: AccountantResult, *, claimed: bool) -> Comparison:
    """Compares up to rounding for the same version of a library, else up to the accountants' stated errors.

    Args:
      written: None if it is missing.
      here: the same accountant's result, computed here.
      claimed: whether it is the guarantee's own epsilon. That must not be lower than `here`, for any written version.
    """
    if written is None:
        return Comparison(written=written, here=here, remark="missing", agrees=False)
    if here.epsilon is None:
        invented = here.remark == UNKNOWN and written.epsilon is not None
        return Comparison(written=written, here=here, remark=f"not compared: {here.remark}", agrees=not invented)
    if written.epsilon is None:
        plausible = "PRV" in here.accountant and written.remark.startswith((NOT_INSTALLED, TOO_SLOW))
        return Comparison(written=written, here=here, remark=f"no answer then: {written.remark}", agrees=plausible)
    error, versions = ROUNDING * max(1.0, here.epsilon), ""
    if written.version != here.version:
        stated = PRV_TOLERANCE if "PRV" in here.accountant else RDP_TOLERANCE
        error = max(error, stated * max(1.0, here.epsilon))
        versions = f" (written by version {written.version or 'unknown'}, this is {here.version}: to {error:.2g})"
    difference = written.epsilon - here.epsilon
    least = -ROUNDING * max(1.0, here.epsilon) if claimed else -error
    if least <= difference <= error and isfinite(difference):
        return Comparison(written=written, here=here, remark=f"agrees{versions}", agrees=True)
    remark = f"{written.epsilon:.6g} is written, {here.epsilon:.6g} follows from the plan{versions}"
    return Comparison(written=written, here=here, remark=remark, agrees=False)
