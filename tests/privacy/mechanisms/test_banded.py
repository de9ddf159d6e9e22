"""Banded matrix factorisation, held against small matrices worked out by hand and dense linear algebra."""

from math import ceil, comb, sqrt

import numpy as np
import pytest

from pipelines.core.errors import GuaranteeError
from pipelines.privacy.mechanisms.banded import (
    CorrelatedNoise,
    CyclicRecord,
    CyclicSampler,
    optimal_coefficients,
    prefix_sum_variances,
    square_root_coefficients,
    strategy_matrix,
    whitened,
)
from pipelines.privacy.sampling import PoissonSampler, SamplerRecord


def test_two_bands_of_the_square_root_by_hand() -> None:
    assert square_root_coefficients(2) == pytest.approx([1 / sqrt(1.25), 0.5 / sqrt(1.25)])


def test_the_square_root_squares_to_prefix_sums() -> None:
    series = square_root_coefficients(8) / square_root_coefficients(8)[0]
    assert series == pytest.approx([comb(2 * k, k) / 4**k for k in range(8)])
    root = strategy_matrix(series, 8)
    np.testing.assert_allclose(root @ root, np.tri(8))


@pytest.mark.parametrize("bands", [1, 2, 5, 16])
def test_coefficients_have_unit_norm(bands: int) -> None:
    assert np.linalg.norm(square_root_coefficients(bands)) == pytest.approx(1, abs=1e-14)
    assert np.linalg.norm(optimal_coefficients(bands, 40)) == pytest.approx(1, abs=1e-14)


def test_columns_a_cycle_apart_share_no_row() -> None:
    columns = strategy_matrix(optimal_coefficients(3, 8), 8).T
    for group in range(3):
        mine = columns[group::3]
        assert (np.count_nonzero(mine, axis=0) <= 1).all()
    np.testing.assert_allclose(np.linalg.norm(columns[:6], axis=1), 1)
    assert (np.linalg.norm(columns[6:], axis=1) < 1).all(), "the last columns are cut short"


def test_two_bands_release_noise_by_hand() -> None:
    """C = [[2, 0, 0], [1, 2, 0], [0, 1, 2]] and z = (4, 4, 5): x = 2, (4 - 2) / 2, (5 - 1) / 2."""
    noise = CorrelatedNoise((2.0, 1.0))
    assert [float(noise.next([np.array(z)])[0]) for z in (4.0, 4.0, 5.0)] == [2.0, 1.0, 2.0]


@pytest.mark.parametrize("bands", [1, 2, 7, 30])
def test_streamed_noise_solves_the_dense_system(bands: int) -> None:
    rng, coefficients = np.random.default_rng(0), optimal_coefficients(bands, 30)
    draws = rng.standard_normal((30, 4))
    stream = CorrelatedNoise(coefficients)
    noise = np.array([np.concatenate(stream.next([row[:1], row[1:]])) for row in draws])
    np.testing.assert_allclose(noise, np.linalg.solve(strategy_matrix(coefficients, 30), draws), atol=1e-13)
    np.testing.assert_allclose(whitened(noise, coefficients), draws, atol=1e-13)


def test_overwriting_released_noise_leaves_the_memory_alone() -> None:
    noise = CorrelatedNoise((2.0, 1.0))
    noise.next([np.array([4.0])])[0][:] = 99.0
    assert noise.next([np.array([4.0])])[0] == 1.0


def test_one_band_is_the_draw_itself() -> None:
    draws = np.random.default_rng(0).standard_normal(5)
    assert optimal_coefficients(1, 9) == (1.0,)
    np.testing.assert_array_equal(CorrelatedNoise((1.0,)).next([draws])[0], draws)


def test_prefix_variances_are_the_dense_ones() -> None:
    coefficients = optimal_coefficients(4, 12)
    factor = np.tri(12) @ np.linalg.inv(strategy_matrix(coefficients, 12))
    np.testing.assert_allclose(prefix_sum_variances(coefficients, 12), (factor**2).sum(axis=1))
    np.testing.assert_allclose(prefix_sum_variances((1.0,), 5), [1, 2, 3, 4, 5])


def test_two_bands_by_hand_have_the_variances_of_paper() -> None:
    """C = (1, 1/2) / s with s^2 = 5/4: C^-1 = s (1, -1/2, 1/4), prefix sums s (1, 1/2, 3/4)."""
    expected = 1.25 * np.cumsum([1, 1 / 4, 9 / 16])
    np.testing.assert_allclose(prefix_sum_variances(square_root_coefficients(2), 3), expected)


@pytest.mark.parametrize(("bands", "steps"), [(2, 2), (4, 60), (16, 300), (16, 5000)])
def test_optimal_coefficients_beat_the_square_root(bands: int, steps: int) -> None:
    best = prefix_sum_variances(optimal_coefficients(bands, steps), steps).mean()
    assert best <= prefix_sum_variances(square_root_coefficients(bands), steps).mean()


def test_optimal_coefficients_are_a_minimum() -> None:
    best, rng = np.array(optimal_coefficients(4, 50)), np.random.default_rng(0)
    least = prefix_sum_variances(best, 50).mean()
    for _ in range(20):
        other = best + 1e-3 * rng.standard_normal(4)
        assert prefix_sum_variances(other / np.linalg.norm(other), 50).mean() > least


def test_two_optimal_bands_over_two_steps_by_hand() -> None:
    """c = (cos a, sin a): errors 1/cos^2 and 1/cos^2 + (1/cos - sin/cos^2)^2; a scan over angles finds the least."""
    angles = np.linspace(0, 1.2, 200_001)
    cos, sin = np.cos(angles), np.sin(angles)
    total = 2 / cos**2 + (1 / cos - sin / cos**2) ** 2
    best = angles[total.argmin()]
    assert optimal_coefficients(2, 2) == pytest.approx([np.cos(best), np.sin(best)], abs=1e-5)


def test_a_unit_joins_only_on_its_turn() -> None:
    sampler = CyclicSampler(50, q=0.5, bands=3, rng=np.random.default_rng(0))
    for step in range(30):
        assert (sampler.groups[sampler.draw()] == step % 3).all()


def test_members_join_with_their_probability() -> None:
    sampler = CyclicSampler(400, q=0.25, bands=4, rng=np.random.default_rng(0))
    joined = sum(len(sampler.draw()) for _ in range(400))
    assert joined == pytest.approx(400 * 400 / 4 * 0.25, rel=0.03)


def test_a_unit_less_leaves_the_others_groups() -> None:
    groups = [CyclicSampler(units, q=1, bands=5, rng=np.random.default_rng(0)).groups for units in (99, 100)]
    np.testing.assert_array_equal(groups[0], groups[1][:99])


def test_one_group_draws_plain_poisson_samples() -> None:
    cyclic = CyclicSampler(40, q=0.3, bands=1, rng=np.random.default_rng(5))
    plain = PoissonSampler(40, 0.3, np.random.default_rng(5))
    for _ in range(10):
        np.testing.assert_array_equal(cyclic.draw(), plain.draw())


def test_more_groups_than_units_leave_empty_samples() -> None:
    sampler = CyclicSampler(1, q=1, bands=4, rng=np.random.default_rng(0))
    record = CyclicRecord(sampler.groups, q=1, bands=4)
    sizes = []
    for _ in range(8):
        sample = sampler.draw()
        record.observe(sample)
        sizes.append(len(sample))
    assert sum(sizes) == 2
    assert record.verdict().holds


def _watched(units: int, q: float, bands: int, steps: int, *, drawn: float | None = None) -> CyclicRecord:
    sampler = CyclicSampler(units, q=drawn or q, bands=bands, rng=np.random.default_rng(3))
    record = CyclicRecord(sampler.groups, q=q, bands=bands)
    for _ in range(steps):
        record.observe(sampler.draw())
    return record


def test_the_record_accepts_the_sampler() -> None:
    assert _watched(300, 0.2, 4, 81).verdict().p_value > 1e-3


def test_the_record_refuses_twice_the_probability() -> None:
    verdict = _watched(300, 0.2, 4, 81, drawn=0.4).verdict()
    assert not verdict.holds
    assert "group" in verdict.test


def test_the_record_refuses_a_unit_out_of_turn() -> None:
    record = CyclicRecord(np.array([0, 1, 0]), q=0.5, bands=2)
    record.observe(np.array([0, 2]))
    with pytest.raises(GuaranteeError, match="step 2 contradicts"):
        record.observe(np.array([2]))


def test_the_record_keeps_the_groups_as_dealt() -> None:
    groups = np.array([0, 1])
    record = CyclicRecord(groups, q=0.5, bands=2)
    groups[:] = 1
    with pytest.raises(GuaranteeError):
        record.observe(np.array([1]))


def test_the_record_refuses_a_unit_twice_in_a_sample() -> None:
    record = CyclicRecord(np.zeros(9, np.int64), q=0.5, bands=1)
    record.observe(np.array([1, 1]))
    assert not record.verdict().holds


def test_one_group_is_judged_as_poisson_samples() -> None:
    cyclic, plain = CyclicRecord(np.zeros(60, np.int64), q=0.3, bands=1), SamplerRecord(60, 0.3)
    sampler = PoissonSampler(60, 0.3, np.random.default_rng(5))
    for _ in range(20):
        sample = sampler.draw()
        cyclic.observe(sample)
        plain.observe(sample)
        np.testing.assert_array_equal(cyclic.latest, plain.latest)
    assert cyclic.verdict().p_value == plain.verdict().p_value


@pytest.mark.parametrize(("bands", "steps"), [(3, 8), (4, 8), (5, 5)])
def test_a_unit_takes_as_many_turns_as_accounted(bands: int, steps: int) -> None:
    """At q = 1 the whole release is a Gaussian mechanism; its sensitivity is sqrt(turns) for the first group."""
    matrix = strategy_matrix(optimal_coefficients(bands, steps), steps)
    shifts = [np.linalg.norm(matrix[:, group::bands].sum(axis=1)) for group in range(bands)]
    assert max(shifts) <= sqrt(ceil(steps / bands)) + 1e-12
