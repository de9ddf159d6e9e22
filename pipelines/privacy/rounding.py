"""Bounds in few digits: rounding to nearest could promise or prove too much."""

from decimal import ROUND_CEILING, ROUND_FLOOR, Context


def rounded_up(value: float, digits: int = 4) -> str:
    """An upper bound to significant digits."""
    return _rounded(value, digits, ROUND_CEILING)


def rounded_down(value: float, digits: int = 4) -> str:
    """A lower bound to significant digits."""
    return _rounded(value, digits, ROUND_FLOOR)


def rounded_apart(claim: float, bound: float) -> tuple[str, str]:
    """Rounds a claim up and the lower bound that refutes it down, with enough digits to tell them apart.

    Args:
      claim: an upper bound.
      bound: a lower bound, above the claim.
    """
    texts = [(rounded_up(claim, digits), rounded_down(bound, digits)) for digits in range(4, 18)]
    return next((pair for pair in texts if float(pair[0]) < float(pair[1])), texts[-1])


def _rounded(value: float, digits: int, rounding: str) -> str:
    return f"{float(Context(prec=digits, rounding=rounding).create_decimal(repr(float(value)))):.{digits}g}"
