"""The clip norm that follows a quantile."""

from math import exp

import numpy as np
import pytest

from pipelines.privacy.clipping import next_clip_norm
from pipelines.privacy.mechanisms.base import AdaptiveClipping

EXACT = AdaptiveClipping(target_quantile=0.5, learning_rate=0.2, count_stddev=0.0)
RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("units", "clipped", "share"),
    [
        (3, 1, 0.625),  # two halves less one half over 4, and the half that was taken off
        (4, 4, 0.0),
        (4, 0, 1.0),
        (0, 0, 0.5),  # nobody says nothing
        (9, 0, 1.0),  # more than were expected: brought back from 1.625
        (9, 9, 0.0),
    ],
)
def test_norm_moves_by_rate_times_distance_to_the_quantile(units: int, clipped: int, share: float) -> None:
    moved = next_clip_norm(0.3, EXACT, units=units, clipped=clipped, expected_batch_size=4.0, rng=RNG)
    assert moved == pytest.approx(0.3 * exp(-0.2 * (share - 0.5)))


def test_one_unit_moves_the_count_by_one_half() -> None:
    def count(units: int, clipped: int) -> float:
        moved = next_clip_norm(1.0, EXACT, units=units, clipped=clipped, expected_batch_size=100.0, rng=RNG)
        return float(-np.log(moved) / 0.2 * 100)

    assert count(7, 3) - count(6, 3) == pytest.approx(0.5)
    assert count(7, 4) - count(6, 3) == pytest.approx(-0.5)


def test_the_count_has_fresh_noise_of_the_planned_scale() -> None:
    noisy = AdaptiveClipping(target_quantile=0.5, learning_rate=0.2, count_stddev=3.0)

    def counts(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        moved = [
            next_clip_norm(1.0, noisy, units=0, clipped=0, expected_batch_size=1000.0, rng=rng) for _ in range(2000)
        ]
        return -np.log(moved) / 0.2 * 1000

    found = counts(1)
    # Chi-square with 2,000 degrees of freedom: mean 2000, standard deviation sqrt(4000).
    assert abs(float(((found / 3) ** 2).sum()) - 2000) < 5 * np.sqrt(4000)
    assert len(set(found)) > 1990  # on a grid of some million points two may meet
    np.testing.assert_array_equal(found, counts(1))
    assert not np.array_equal(found, counts(2))
