"""Banded matrix factorisation, held against small matrices worked out by hand and dense linear algebra."""

import json
from collections.abc import Sequence
from math import ceil, comb, sqrt
from typing import Any

import dp_accounting
import numpy as np
import pytest
import torch

from pipelines.core.errors import GuaranteeError, UserError
from pipelines.privacy.accounting.calibration import calibrate
from pipelines.privacy.accounting.epsilon import accountant_results
from pipelines.privacy.guarantee import PrivacyGuarantee
from pipelines.privacy.mechanisms.banded import BandedMechanism, CyclicRecord, CyclicSampler, cyclic_faults
from pipelines.privacy.mechanisms.banded_noise import (
    CorrelatedNoise,
    optimal_coefficients,
    prefix_sum_variances,
    square_root_coefficients,
    whitened,
)
from pipelines.privacy.mechanisms.base import PrivacyUnit, ProblemSize
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism
from pipelines.privacy.sampling import PoissonSampler, SamplerRecord
from pipelines.privacy.verification import verify_guarantee


def strategy_matrix(coefficients: Sequence[float], steps: int) -> np.ndarray:
    """C, dense."""
    matrix = np.zeros((steps, steps))
    for j, value in enumerate(coefficients[:steps]):
        matrix[np.arange(j, steps), np.arange(steps - j)] = value
    return matrix


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


@pytest.mark.parametrize("array", [np.array, torch.tensor])
def test_overwriting_released_noise_leaves_the_memory_alone(array: Any) -> None:
    noise = CorrelatedNoise((2.0, 1.0))
    noise.next([array([4.0])])[0][:] = 99.0
    assert float(noise.next([array([4.0])])[0].sum()) == 1.0


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
    sampler, record = CyclicSampler(1, q=1, bands=4, rng=np.random.default_rng(0)), CyclicRecord(1, q=1, bands=4)
    samples = [sampler.draw() for _ in range(8)]
    for sample in samples:
        record.observe(sample)
    assert sum(map(len, samples)) == 2
    assert record.verdict().holds


def _watched(*, q: float = 0.2, drawn: float = 0.2, steps: int = 81) -> CyclicRecord:
    sampler, record = (
        CyclicSampler(300, q=drawn, bands=4, rng=np.random.default_rng(3)),
        CyclicRecord(300, q=q, bands=4),
    )
    for _ in range(steps):
        record.observe(sampler.draw())
    return record


def test_the_record_accepts_the_sampler() -> None:
    verdict = _watched().verdict()
    assert verdict.p_value > 1e-3
    assert verdict.law == "cyclic poisson"


def test_the_record_refuses_twice_the_probability() -> None:
    assert not _watched(drawn=0.4).verdict().holds


def test_the_record_refuses_samples_of_one_size() -> None:
    record, rng = CyclicRecord(300, q=0.2, bands=3), np.random.default_rng(0)
    for step in range(300):
        record.observe(100 * (step % 3) + rng.choice(100, 20, replace=False))
    assert not record.verdict().holds


def test_the_record_refuses_a_unit_out_of_turn() -> None:
    record = CyclicRecord(3, q=0.5, bands=2)
    record.observe(np.array([0, 2]))
    with pytest.raises(GuaranteeError, match="step 2 contradicts"):
        record.observe(np.array([2]))


def test_a_unit_keeps_its_turn_in_later_cycles() -> None:
    record = CyclicRecord(3, q=0.5, bands=2)
    for sample in ([0], [1], [0, 2], [1]):
        record.observe(np.array(sample))
    np.testing.assert_array_equal(record.latest, [False, True, False])
    with pytest.raises(GuaranteeError):
        record.observe(np.array([1]))


def test_the_record_refuses_a_unit_twice_in_a_sample() -> None:
    record = CyclicRecord(9, q=0.5, bands=1)
    record.observe(np.array([1, 1]))
    assert not record.verdict().holds


@pytest.mark.parametrize("sample", [[3, 3], [3, 9]])
def test_an_open_cycle_is_judged_too(sample: list[int]) -> None:
    record = CyclicRecord(9, q=0.5, bands=4)
    record.observe(np.array(sample))
    assert record.verdict().p_value == 0
    # Of 300 units 225 are in the three groups that had their turn; with q = 0.1 about 22 of them join, not all.
    crowded = CyclicRecord(300, q=0.1, bands=4)
    for turn in range(3):
        crowded.observe(np.arange(75) + 75 * turn)
    assert not crowded.verdict().holds


def test_groups_of_other_sizes_are_refused() -> None:
    record = CyclicRecord(300, q=0.5, bands=4)
    rng = np.random.default_rng(0)
    for step in range(40):  # all units in the first group
        record.observe(np.flatnonzero(rng.random(300) < 0.5) if step % 4 == 0 else np.zeros(0, np.int64))
    assert not record.verdict().holds


def test_correct_records_hold_whenever_a_run_ends() -> None:
    for seed in range(200):
        sampler = CyclicSampler(40, q=0.3, bands=3, rng=np.random.default_rng(seed))
        record = CyclicRecord(40, q=0.3, bands=3)
        for _ in range(1 + seed % 11):
            record.observe(sampler.draw())
        assert record.verdict().holds


def test_one_group_is_judged_as_poisson_samples() -> None:
    cyclic, plain = CyclicRecord(60, q=0.3, bands=1), SamplerRecord(60, 0.3)
    sampler = PoissonSampler(60, 0.3, np.random.default_rng(5))
    for _ in range(20):
        sample = sampler.draw()
        cyclic.observe(sample)
        plain.observe(sample)
        np.testing.assert_array_equal(cyclic.latest, plain.latest)
    assert cyclic.verdict().p_value == plain.verdict().p_value


def test_cycles_of_all_groups_are_poisson_samples() -> None:
    sampler = CyclicSampler(400, q=0.3, bands=4, rng=np.random.default_rng(1))
    joined = np.zeros((402, 400), bool)
    for row in joined:
        row[sampler.draw()] = True
    assert cyclic_faults(joined, q=0.3, bands=4, level=1e-6) == []
    assert "with probability 0.2998" in cyclic_faults(joined, q=0.2, bands=4, level=1e-6)[0]
    assert "joins in two" in cyclic_faults(joined, q=0.3, bands=3, level=1e-6)[0]


@pytest.mark.parametrize(("bands", "steps"), [(3, 8), (4, 8), (5, 5)])
def test_a_unit_takes_as_many_turns_as_accounted(bands: int, steps: int) -> None:
    """At q = 1 the whole release is a Gaussian mechanism; its sensitivity is sqrt(turns) for the first group."""
    matrix = strategy_matrix(optimal_coefficients(bands, steps), steps)
    shifts = [np.linalg.norm(matrix[:, group::bands].sum(axis=1)) for group in range(bands)]
    assert max(shifts) <= sqrt(ceil(steps / bands)) + 1e-12


def banded(bands: int, *, sample: int = 10, steps: int = 61, sigma: float = 1.3, **changes: Any) -> BandedMechanism:
    values: dict[str, Any] = {
        "unit": PrivacyUnit.EXAMPLE, "population": 1000, "sampling_probability": bands * sample / 1000, "steps": steps,
        "noise_multiplier": sigma, "clip_norm": 0.7, "delta": 1e-5, "coefficients": optimal_coefficients(bands, steps),
    }  # fmt: skip
    return BandedMechanism(**values | changes)


def plain(q: float, steps: int, sigma: float = 1.3) -> PoissonGaussianMechanism:
    return PoissonGaussianMechanism(
        unit=PrivacyUnit.EXAMPLE, population=1000, sampling_probability=q, steps=steps, noise_multiplier=sigma,
        clip_norm=0.7, delta=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize(("bands", "turns"), [(1, 61), (4, 16), (60, 2), (61, 1)])
def test_epsilon_is_that_of_the_turns_of_one_unit(bands: int, turns: int) -> None:
    assert banded(bands).epsilon() == pytest.approx(plain(bands * 0.01, turns).epsilon(), abs=1e-9)


def test_every_accountant_answers_for_the_turns() -> None:
    mine, theirs = accountant_results(banded(4)), accountant_results(plain(0.04, 16))
    assert [result.epsilon for result in mine] == [result.epsilon for result in theirs]


def test_the_event_is_known_to_dp_accounting() -> None:
    """As `amplified_bandmf_event` of jax_privacy has it: ceil(61 / 4) steps at the probability within a group."""
    event = dp_accounting.SelfComposedDpEvent(
        dp_accounting.PoissonSampledDpEvent(0.04, dp_accounting.GaussianDpEvent(1.3)), 16
    )
    assert banded(4).dp_event() == event
    accountant = dp_accounting.pld.PLDAccountant().compose(event)
    assert banded(4).epsilon() == pytest.approx(accountant.get_epsilon(1e-5), abs=1e-4)


def test_a_run_cut_short_counts_the_turns_that_began() -> None:
    assert [banded(4).executed(steps).composition.steps for steps in (0, 1, 4, 5, 60)] == [0, 1, 1, 2, 15]
    assert banded(4).executed(0).epsilon() == 0


def test_divisor_is_the_expected_sample() -> None:
    assert banded(4).expected_batch_size == pytest.approx(10)
    assert banded(1).expected_batch_size == plain(0.01, 61).expected_batch_size


def test_calibration_meets_its_target() -> None:
    plan = calibrate(banded(4), 2.0)
    assert 1.99 < plan.epsilon() <= 2.0
    assert plan.noise_multiplier == calibrate(plain(0.04, 16), 2.0).noise_multiplier


def test_columns_longer_than_one_are_refused() -> None:
    with pytest.raises(UserError, match="outgrow the clip norm"):
        banded(2, coefficients=(1.0, 0.1))


def test_privacy_json_holds_the_mechanism() -> None:
    guarantee = PrivacyGuarantee.of(banded(4), simulated=False)
    written = json.loads(json.dumps(guarantee.to_dict()))
    assert (written["mechanism"], written["bands"], len(written["coefficients"])) == ("banded", 4, 4)
    assert PrivacyGuarantee.from_dict(written) == guarantee
    assert verify_guarantee(written).holds


@pytest.mark.parametrize(
    ("key", "value", "objection"),
    [
        ("bands", 3, "bands is 3, but 4 follows"),
        ("sampling_probability", 0.01, "follows from the plan"),
        ("expected_batch_size", 40.0, "expected_batch_size is 40.0, but 10.0 follows"),
        ("steps", 65, "follows from the plan"),
    ],
)
def test_a_changed_schedule_is_noticed(key: str, value: float, objection: str) -> None:
    written = json.loads(json.dumps(PrivacyGuarantee.of(banded(4), simulated=False).to_dict()))
    assert objection in " ".join(verify_guarantee(written | {key: value}).objections)


@pytest.mark.parametrize("coefficients", [[1.0, 0.5], [], ["a"], [float("nan")], [-1.0], [0.0, 1.0]])
def test_coefficients_that_void_the_bound_are_refused(coefficients: list[Any]) -> None:
    written = PrivacyGuarantee.of(banded(4), simulated=False).to_dict()
    with pytest.raises(UserError):
        verify_guarantee(written | {"coefficients": coefficients})


def test_an_audits_problem_has_full_cycles() -> None:
    size = ProblemSize(
        observations=5000, sample=50, least_units=500, most_units=2000, least_steps=8, most_steps=1000, longest=32,
        rare=1e-8,
    )  # fmt: skip
    for bands in (1, 4, 61):
        own = banded(bands).resized(size)
        assert own.steps % bands == 0
        assert own.steps // bands >= 8
        assert own.coefficients == banded(bands).coefficients


def test_the_first_bands_keep_columns_of_length_one() -> None:
    own = banded(61).among(40, 8, join=0.5, longest=6)
    assert (own.bands, own.sampling_probability) == (6, 0.61)
    assert np.linalg.norm(own.coefficients) == pytest.approx(1, abs=1e-14)
