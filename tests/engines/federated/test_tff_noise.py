"""Keys and draws of the private aggregation's noise, on the queries themselves."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2, kstest

from pipelines.engines.federated.engine import tf
from pipelines.engines.federated.keys import DRAWS
from pipelines.engines.federated.learning_process import Server
from pipelines.engines.federated.tff_noise import Noise, private_mean_query, with_fresh_keys
from pipelines.privacy.mechanisms.base import AdaptiveClipping
from tests.engines.federated.conftest import dp_settings, federated_data

FIXED = Noise(noise_multiplier=1.5, clip_norm=0.7, expected_batch_size=4, adaptive=None)
# A count this noisy leaves the update 2.27 rather than 1.5: 1.5^-2 - (2 * 1)^-2 = 2.27^-2.
ADAPTIVE = AdaptiveClipping(target_quantile=0.5, learning_rate=1e-3, count_stddev=1.0)
FOLLOWING = Noise(noise_multiplier=1.5, clip_norm=0.7, expected_batch_size=4, adaptive=ADAPTIVE)
SHAPES = ((40, 30), (30,), (30, 10), ())
SPECS = tuple(tf.TensorSpec(shape, tf.float32) for shape in SHAPES)
COORDINATES = 1531
ROUNDS = 4


def noise_of(noise: Noise, state: Any, rounds: int = ROUNDS) -> tuple[np.ndarray, np.ndarray]:
    """Sums no records, round by round.

    Returns:
      Noise on the mean, shape (rounds, coordinates of all tensors), and the clip norms, shape (rounds + 1,).
    """
    query = private_mean_query(noise, SPECS)
    nothing = query.initial_sample_state([tf.zeros(shape) for shape in SHAPES])
    results, clips = [], [noise.clip_norm]
    for _ in range(rounds):
        result, state, _ = query.get_noised_result(nothing, state)
        results.append(np.concatenate([np.ravel(value) for value in result]))
        clips.append(float(query.derive_metrics(state).get("clip", noise.clip_norm)))
    return np.array(results), np.array(clips)


def start(noise: Noise, seed: int = 0) -> Any:
    return with_fresh_keys(private_mean_query(noise, SPECS).initial_global_state(), np.random.default_rng(seed))


def keys_of(state: Any) -> list[np.ndarray]:
    if not hasattr(state, "_fields"):
        return []
    return [key for name, value in state._asdict().items() for key in ([value] if name == "key" else keys_of(value))]


def with_key(state: Any, key: np.ndarray) -> Any:
    """The state of fixed clipping with that key."""
    return state._replace(numerator_state=state.numerator_state._replace(key=key))


@pytest.mark.parametrize("noise", [FIXED, FOLLOWING])
def test_keys_are_128_bits_of_the_stream_each(noise: Noise) -> None:
    stream = np.random.default_rng(5)
    keys = keys_of(with_fresh_keys(private_mean_query(noise, SPECS).initial_global_state(), stream))
    assert np.concatenate(keys).tobytes() == np.random.default_rng(5).bytes(16 * len(keys))
    assert len(keys) == (1 if noise.adaptive is None else 2)


@pytest.mark.parametrize(("word", "bit"), [(0, 0), (0, 32), (0, 63), (1, 32), (1, 63)])
def test_keys_that_differ_in_one_bit_give_unrelated_noise(word: int, bit: int) -> None:
    state = start(FIXED)
    (key,) = keys_of(state)
    other = key.copy()
    other.view(np.uint64)[word] ^= np.uint64(1 << bit)
    ours, theirs = (noise_of(FIXED, with_key(state, k))[0] for k in (key, other))
    assert np.mean(ours == theirs) < 1e-3
    assert np.abs(np.corrcoef(ours, theirs)[:ROUNDS, ROUNDS:]).max() < 5 / np.sqrt(COORDINATES)


@pytest.mark.parametrize(("noise", "tensors"), [(FIXED, 4), (FOLLOWING, 5)])
def test_no_two_draws_of_a_run_share_a_seed(noise: Noise, tensors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # TensorFlow maps seeds to Philox keys and counters one to one: other seeds are other blocks of the generator.
    seeds, draw = [], tf.random.stateless_normal

    def spy(shape: Any, seed: Any, **options: Any) -> Any:
        seeds.append(seed.numpy().tobytes())
        return draw(shape, seed, **options)

    monkeypatch.setattr(tf.random, "stateless_normal", spy)
    noise_of(noise, start(noise))
    assert len(set(seeds)) == len(seeds) == ROUNDS * tensors * DRAWS


@pytest.mark.parametrize("noise", [FIXED, FOLLOWING])
def test_no_block_of_noise_appears_twice_in_a_run(noise: Noise) -> None:
    values = noise_of(noise, start(noise), rounds=8)[0].astype(np.float32)
    pairs = np.lib.stride_tricks.sliding_window_view(values.ravel(), 2)
    assert len(np.unique(np.abs(pairs), axis=0)) == len(pairs) == 8 * COORDINATES - 1


@pytest.mark.parametrize(("noise", "multiplier"), [(FIXED, 1.5), (FOLLOWING, (1.5**-2 - 2**-2) ** -0.5)])
def test_noise_is_normal_with_the_updates_deviation_and_independent(noise: Noise, multiplier: float) -> None:
    values, clips = noise_of(noise, start(noise))
    scaled = values / (multiplier * clips[:-1, None] / 4)
    low, high = chi2.ppf([1e-4, 1 - 1e-4], scaled.size)
    assert low < (scaled**2).sum() < high
    assert kstest(scaled.ravel(), "norm").pvalue > 1e-3
    # Between rounds, and between neighbouring coordinates.
    assert np.abs(np.corrcoef(scaled) - np.eye(ROUNDS)).max() < 5 / np.sqrt(COORDINATES)
    flat = scaled.ravel()
    assert all(abs(np.mean(flat[lag:] * flat[:-lag])) < 5 / np.sqrt(flat.size) for lag in range(1, 9))


def test_noise_on_the_count_has_its_own_deviation_and_key() -> None:
    # No records are 0 of 40 centred counts, half: the norm moves by exp(-rate * noise / 40).
    noise = Noise(noise_multiplier=1.5, clip_norm=0.7, expected_batch_size=40, adaptive=ADAPTIVE)
    values, clips = noise_of(noise, start(noise), rounds=200)
    count = -np.diff(np.log(clips)) / ADAPTIVE.learning_rate * 40
    low, high = chi2.ppf([1e-4, 1 - 1e-4], 200)
    assert low < (count**2).sum() < high
    updates = values[:, [0, 1, 1200, 1530]]
    assert np.abs(np.corrcoef(count, updates.T)[0, 1:]).max() < 5 / np.sqrt(200)


@pytest.mark.parametrize("noise", [FIXED, FOLLOWING])
def test_equal_keys_repeat_the_noise_and_the_clip_norms(noise: Noise) -> None:
    first, same, other = (noise_of(noise, start(noise, seed)) for seed in (1, 1, 2))
    for mine, expected in zip(first, same, strict=True):
        np.testing.assert_array_equal(mine, expected)
    assert (first[0] != other[0]).all()
    assert noise.adaptive is None or (first[1][1:] != other[1][1:]).all()


@pytest.mark.parametrize("adaptive", [None, AdaptiveClipping(target_quantile=0.5, learning_rate=0.2, count_stddev=0)])
def test_a_multiplier_of_zero_leaves_the_sum_exact(adaptive: AdaptiveClipping | None) -> None:
    noise = Noise(noise_multiplier=0, clip_norm=0.7, expected_batch_size=4, adaptive=adaptive)
    values, _ = noise_of(noise, start(noise))
    assert not values.any()


def test_a_private_server_without_keys_is_refused() -> None:
    data = federated_data([2, 2])
    with pytest.raises(ValueError, match="keys of its noise"):
        Server(dp_settings(), data, FIXED, order=np.random.default_rng(0))
