"""The noise of a banded factorisation in TFF, on the query itself."""

from collections.abc import Iterator
from typing import Any

import dp_accounting
import numpy as np
import pytest

from pipelines.engines.federated.engine import tf
from pipelines.engines.federated.tff_noise import KeyedBandedSum, KeyedSum, with_fresh_keys
from pipelines.privacy.mechanisms.banded_noise import optimal_coefficients, whitened

SHAPES = ((40, 30), (30,), ())
SPECS = tuple(tf.TensorSpec(shape, tf.float32) for shape in SHAPES)
CLIP, STDDEV = 0.7, 1.05


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def banded(coefficients: tuple[float, ...]) -> KeyedBandedSum:
    return KeyedBandedSum(clip_norm=CLIP, stddev=STDDEV, coefficients=coefficients, specs=SPECS)


def released(query: Any, rounds: int, seed: int = 0) -> np.ndarray:
    """What sums over nobody come out as, (rounds, coordinates), in standard deviations of a row of C X."""
    state = with_fresh_keys(query.initial_global_state(), np.random.default_rng(seed))
    nobody = query.initial_sample_state([tf.zeros(shape) for shape in SHAPES])
    results = []
    for _ in range(rounds):
        result, state, _ = query.get_noised_result(nobody, state)
        results.append(np.concatenate([np.ravel(value) for value in result]))
    return np.array(results, np.float64) / STDDEV


@pytest.mark.parametrize("bands", [2, 5])
def test_noise_comes_from_the_draws_of_plain_noise(bands: int) -> None:
    coefficients = optimal_coefficients(bands, 12)
    noise = released(banded(coefficients), 12)
    np.testing.assert_allclose(whitened(noise, coefficients), released(KeyedSum(CLIP, STDDEV), 12), atol=2e-6)
    assert not np.allclose(noise, released(banded(coefficients), 12, seed=1))


def test_rounding_does_not_add_up() -> None:
    coefficients = optimal_coefficients(3, 300)
    noise = released(banded(coefficients), 300)
    np.testing.assert_allclose(whitened(noise, coefficients), released(KeyedSum(CLIP, STDDEV), 300), atol=4e-6)


def test_a_record_is_clipped_and_summed() -> None:
    query = KeyedBandedSum(clip_norm=CLIP, stddev=0.0, coefficients=optimal_coefficients(2, 4), specs=SPECS)
    state = with_fresh_keys(query.initial_global_state(), np.random.default_rng(0))
    record = [tf.fill(shape, 10.0) for shape in SHAPES]
    sums = query.accumulate_record(query.derive_sample_params(state), query.initial_sample_state(record), record)
    result, _, _ = query.get_noised_result(sums, state)
    assert np.sqrt(sum(float(tf.reduce_sum(value**2)) for value in result)) == pytest.approx(CLIP, rel=1e-5)


def test_the_event_counts_the_length_of_a_column() -> None:
    events = []
    for scale in (1.0, 2.0):
        query = banded(tuple(scale * value for value in optimal_coefficients(3, 9)))
        state = query.initial_global_state()
        nobody = query.initial_sample_state([tf.zeros(shape) for shape in SHAPES])
        events.append(query.get_noised_result(nobody, state)[2])
    assert all(isinstance(event, dp_accounting.GaussianDpEvent) for event in events)
    assert [float(event.noise_multiplier) for event in events] == pytest.approx([1.5, 0.75])
