import math

import numpy as np
import pytest

from pipelines.core.errors import UserError
from pipelines.recipes.drift import (
    Comparison,
    bands_in_words,
    build_cells,
    compare,
    drift_table,
    equal,
    prediction_band,
)
from pipelines.recipes.recipe import Bands
from pipelines.recipes.record import ResultRow

from .results import row

BANDS = Bands(confidence=0.95, test_examples=100)
RECORDED = [row(accuracy, seed=seed) for seed, accuracy in enumerate((0.90, 0.92, 0.94))]


def against(recorded: list[ResultRow], now: list[ResultRow], bands: Bands = BANDS) -> list[Comparison]:
    return compare(build_cells(recorded, "recorded"), build_cells(now, "now"), bands)


def test_the_band_is_the_prediction_interval_of_a_mean() -> None:
    # s = 0.02 and n = 3; t(2, 0.975) = 4.302653 from a printed table; one new value: sqrt(1/3 + 1/1) = 1.154701.
    assert prediction_band([0.90, 0.92, 0.94], count=1, confidence=0.95) == pytest.approx(0.0993654, abs=1e-6)
    # Three new ones: sqrt(1/3 + 1/3) = 0.816497.
    assert prediction_band([0.90, 0.92, 0.94], count=3, confidence=0.95) == pytest.approx(0.0702621, abs=1e-6)
    with pytest.raises(ValueError, match="at least two"):
        prediction_band([0.9], count=1, confidence=0.95)


def test_the_confidence_is_divided_among_the_rows() -> None:
    ten = [row(a, seed=s, pipeline=f"p{i}") for i in range(10) for s, a in enumerate((0.90, 0.92, 0.94))]
    (first, *_), (alone,) = against(ten, ten), against(RECORDED, RECORDED)
    # 5 % over ten rows leaves each 0.5 %: t(2, 0.9975) = 14.08905.
    assert first.band == pytest.approx(14.08905 * 0.02 * math.sqrt(2 / 3), rel=1e-6)
    assert alone.band == pytest.approx(0.0702621, abs=1e-6)


def test_the_band_is_never_narrower_than_one_test_example() -> None:
    same = [row(0.97, seed=seed, pipeline="sgd", epsilon=None) for seed in range(4)]
    for correct, drifted in ((0.97, False), (0.96, False), (0.98, False), (0.95, True)):
        (comparison,) = against(same, [row(correct, seed=0, pipeline="sgd", epsilon=None)])
        assert comparison.band == 0.01
        assert comparison.faults == (("accuracy",) if drifted else ())


def test_the_band_holds_new_means_as_often_as_promised() -> None:
    rng, inside = np.random.default_rng(0), 0
    for _ in range(4000):
        recorded, now = rng.normal(0.9, 0.01, 10), rng.normal(0.9, 0.01, 3)
        inside += abs(now.mean() - recorded.mean()) <= prediction_band(recorded.tolist(), count=3, confidence=0.9)
    # Four standard errors of a share of 0.9 in 4000.
    assert inside / 4000 == pytest.approx(0.9, abs=4 * math.sqrt(0.9 * 0.1 / 4000))


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        ({}, ()),
        ({"accuracy": 0.98}, ()),
        ({"accuracy": 0.7}, ("accuracy",)),
        ({"epsilon": 0.998 + 1e-5}, ("epsilon",)),
        ({"epsilon": 0.998 + 1e-7}, ()),
        ({"noise_multiplier": 5.5001}, ("noise_multiplier",)),
        ({"steps": 101}, ("steps",)),
        ({"delta": 1.01e-4}, ("delta",)),
        ({"relation": "replace_one"}, ("relation",)),
    ],
)
def test_what_drifts_is_named(change: dict[str, object], faults: tuple[str, ...]) -> None:
    (comparison,) = against(RECORDED, [ResultRow(**{**RECORDED[0].model_dump(), **change})])
    assert comparison.faults == faults
    table = drift_table([comparison])
    assert ("DRIFTED: " + ", ".join(faults) if faults else "ok") in table
    if faults == ("epsilon",):
        assert "0.998 -> 0.99801" in table


def test_units_and_variants_are_rows_of_their_own() -> None:
    user = [ResultRow(**{**r.model_dump(), "unit": "user"}) for r in RECORDED]
    far = [ResultRow(**{**r.model_dump(), "variant": "6,000 users"}) for r in user]
    three = [*RECORDED, *user, *far]
    assert [c.faults for c in against(three, three)] == [()] * 3
    assert [c.faults for c in against(RECORDED, user)] == [("did not run",), ("not in the record",)]
    assert "dp_sgd_users, 6,000 users" in drift_table(against(far, far))


def test_the_table_says_what_each_band_is_made_of() -> None:
    same = [row(0.97, seed=seed, pipeline="sgd", epsilon=None) for seed in range(4)]
    table = drift_table(against([*RECORDED, *same], [*RECORDED, *same]))
    assert "spread 2.00 of 3 seeds" in table
    assert "one test example" in table
    assert "95 %" in bands_in_words(2, BANDS)
    assert "1 points" in bands_in_words(2, BANDS)


def test_a_missing_row_and_an_unknown_one_have_drifted() -> None:
    plain = [row(0.97, seed=seed, pipeline="sgd", epsilon=None) for seed in (0, 1)]
    assert [c.faults for c in against([*RECORDED, *plain], RECORDED)] == [(), ("did not run",)]
    assert [c.faults for c in against(RECORDED, [*RECORDED, *plain])] == [(), ("not in the record",)]


def test_runs_of_a_row_differ_in_seed_and_accuracy_only() -> None:
    with pytest.raises(UserError, match="seeds 0 and 1 differ in epsilon"):
        build_cells([row(0.9, seed=0), row(0.9, seed=1, epsilon=0.997)], "results.csv")
    with pytest.raises(UserError, match="a seed twice"):
        build_cells([row(0.9, seed=0), row(0.9, seed=0)], "results.csv")


@pytest.mark.parametrize(
    ("recorded", "now", "same"),
    [
        (3.0, 3.0 + 9e-7, True),
        (3.0, 3.0 + 2e-6, False),
        (1e-4, 1.00001e-4, False),
        (None, 1.0, False),
        ("a", "a", True),
    ],
)
def test_equal_is_to_a_millionth(recorded: object, now: object, same: bool) -> None:
    assert equal(recorded, now) is same
