"""Bounds in few digits promise and prove no more than all of them."""

import pytest

from pipelines.privacy.rounding import rounded_down, rounded_up


@pytest.mark.parametrize(
    ("value", "up", "down"),
    [(2.99991, "3", "2.999"), (3.0001, "3.001", "3"), (18.4615, "18.47", "18.46"), (0.0, "0", "0"), (4.0, "4", "4")],
)
def test_four_digits(value: float, up: str, down: str) -> None:
    assert (rounded_up(value), rounded_down(value)) == (up, down)


@pytest.mark.parametrize("digits", [1, 3])
@pytest.mark.parametrize("value", [1e-9, 0.123456, 7.7777, 987_654.3])
def test_the_value_lies_between(value: float, digits: int) -> None:
    up, down = float(rounded_up(value, digits)), float(rounded_down(value, digits))
    assert down <= value <= up
    assert up - down <= 1.01 * 10 ** (1 - digits) * value * 10
