"""Draws of a private stream follow their laws, and are those of the cipher worked out another way."""

import copy
import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy.stats import binom, kstest, norm

from pipelines.core.cipher_stream import CHUNK, CipherStream
from pipelines.core.randomness import private_stream
from pipelines.privacy.noise_grid import noise_grid

KEY = bytes(range(32))
MANY = 1_000_000


def blocks(count: int) -> list[int]:
    """The cipher's output as 64-bit numbers, by encrypting the counter itself, block by block."""
    encryptor = Cipher(algorithms.AES(KEY), modes.ECB()).encryptor()
    whole = b"".join(encryptor.update(number.to_bytes(16, "big")) for number in range(-(-count // 2)))
    return [int.from_bytes(whole[8 * k : 8 * k + 8], "little") for k in range(count)]


def test_draws_are_those_of_the_encrypted_counter() -> None:
    words = blocks(2 * CHUNK + 3)
    uniform = np.array([word // 2**11 for word in words]) / 2**53
    assert np.array_equal(CipherStream(KEY).random(2 * CHUNK + 3), uniform)
    assert CipherStream(KEY).bytes(16) == np.array(words[:2], np.uint64).tobytes()
    # The polar method, point by point: 2/3 of a pair for each draw and 8 more, first all x, then all y.
    pairs = 2 * 1000 // 3 + 8
    signed = [(word - 2**64 if word >= 2**63 else word) / 2**63 for word in words[: 2 * pairs]]
    inside = [(x, y) for x, y in zip(signed[:pairs], signed[pairs:], strict=True) if 0 < x * x + y * y < 1]
    scales = [math.sqrt(-2 * math.log(x * x + y * y) / (x * x + y * y)) for x, y in inside]
    drawn = [point[axis] * scale for axis in (0, 1) for point, scale in zip(inside, scales, strict=True)]
    assert np.allclose(CipherStream(KEY).standard_normal(1000), drawn[:1000], rtol=1e-12, atol=0)


def test_normal_draws_follow_their_law_far_into_the_tails() -> None:
    draws = CipherStream(KEY).standard_normal(4 * MANY)
    assert kstest(draws, "norm").pvalue > 1e-4
    scaled = [np.mean(draws**k) * np.sqrt(len(draws)) for k in (1, 3)]
    assert np.abs(scaled / np.sqrt([1, 15])).max() < 4
    assert abs(np.mean(draws**2) - 1) < 4 * np.sqrt(2 / len(draws))
    for bound in (2.0, 3.0, 4.0, 4.75):
        for beyond in (int((draws > bound).sum()), int((draws < -bound).sum())):
            low, high = binom.ppf([1e-5, 1 - 1e-5], len(draws), norm.sf(bound))
            assert low <= beyond <= high, bound


def test_the_farthest_draw_is_finite() -> None:
    class Fixed(CipherStream):
        def bytes(self, length: int) -> bytes:
            return (1).to_bytes(8, "little") * (length // 16) + bytes(length // 2)  # x = 2^-63, y = 0

    assert Fixed(KEY).standard_normal() == pytest.approx(math.sqrt(2 * 126 * math.log(2)), rel=1e-12)


def test_draws_are_independent_of_each_other() -> None:
    draws = CipherStream(KEY).standard_normal(2 * MANY)
    for lag in (1, 2, CHUNK // 2, CHUNK):  # also of the two draws that one point gives
        for power in (1, 2):
            centred = draws**power - (power == 2)
            products = centred[lag:] * centred[:-lag]
            assert abs(products.mean()) < 5 * products.std() / np.sqrt(len(products))


def test_permutations_are_uniform_and_keep_their_items() -> None:
    stream, items = CipherStream(KEY), np.array([3, 5, 7])
    drawn = [tuple(stream.permutation(items)) for _ in range(6000)]
    assert {tuple(sorted(one)) for one in drawn} == {(3, 5, 7)}
    counts = [drawn.count(one) for one in set(drawn)]
    assert len(counts) == 6
    assert sum((count - 1000) ** 2 / 1000 for count in counts) < 30  # chi-square of 5 degrees, p = 1e-5
    assert sorted(stream.permutation(5)) == [0, 1, 2, 3, 4]


def test_shapes_types_and_single_draws_are_numpys() -> None:
    stream = CipherStream(KEY)
    assert stream.standard_normal((2, 3), np.float32).dtype == np.float32
    assert stream.standard_normal((2, 0, 3)).shape == (2, 0, 3)
    assert isinstance(stream.standard_normal(), float)
    assert 0 <= float(stream.random()) < 1


def test_streams_of_other_names_or_seeds_are_other_streams() -> None:
    streams = [private_stream(seed, name) for seed in (7, 7 + 2**40) for name in ("noise", "sampling")]
    draws = np.array([stream.standard_normal(10_000) for stream in streams])
    assert np.abs(np.corrcoef(draws) - np.eye(4)).max() < 0.05
    assert np.array_equal(private_stream(7, "noise").standard_normal(10_000), draws[0])


def test_what_would_not_come_from_the_cipher_is_refused() -> None:
    for draw in ("normal", "integers", "choice", "shuffle", "uniform", "spawn"):
        with pytest.raises(TypeError, match="private stream"):
            getattr(CipherStream(KEY), draw)(3)


@pytest.mark.parametrize("stddev", [1e-9, 0.3, 1.0, 1.5, 1e6])
def test_grid_is_a_power_of_two_well_below_the_noise(stddev: float) -> None:
    grid = noise_grid(stddev)
    assert np.frexp(grid)[0] == 0.5
    assert 2.0**-21 < grid / stddev <= 2.0**-20


def test_no_noise_has_no_grid() -> None:
    assert noise_grid(0.0) == 0.0


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_stream_has_no_copy(duplicate: Callable[[CipherStream], object]) -> None:
    with pytest.raises(TypeError, match="cipher"):
        duplicate(CipherStream(bytes(32)))


def test_a_forked_process_draws_nothing() -> None:
    stream = CipherStream(bytes(32))
    stream.random()
    stream._owner -= 1  # as another process would see it
    with pytest.raises(RuntimeError, match="forked"):
        stream.random()
