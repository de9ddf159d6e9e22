"""Draws that are not independent Gaussians of one spread are told from draws that are."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from pipelines.auditing.noise_checks import FALSE_ALARM, Floats, noise_faults

SHAPE = (60, 500)
TENSORS = (400, 10, 80, 10)


def gaussian(rng: np.random.Generator) -> Floats:
    return rng.standard_normal(SHAPE)


def test_true_noise_is_blamed_at_most_as_often_as_stated() -> None:
    rng = np.random.default_rng(0)
    assert FALSE_ALARM == 1e-6
    blamed = [bool(noise_faults(2.0 * rng.standard_normal((5, 40)), 2.0, (30, 10))) for _ in range(3000)]
    assert sum(blamed) <= 1  # some 30 checks each: one is expected in 30,000
    assert not any(noise_faults(gaussian(rng), 1.0, TENSORS) for _ in range(40))


def common(rng: np.random.Generator) -> Floats:
    return np.sqrt(0.95) * rng.standard_normal((200, 50)) + np.sqrt(0.05) * rng.standard_normal((200, 1))


def lagged(lag: int, share: float) -> Callable[[np.random.Generator], Floats]:
    def draw(rng: np.random.Generator) -> Floats:
        draws = rng.standard_normal((SHAPE[0] + lag, SHAPE[1]))
        return np.sqrt(share) * draws[lag:] + np.sqrt(1 - share) * draws[:-lag]

    return draw


def repeated(lag: int) -> Callable[[np.random.Generator], Floats]:
    return lambda rng: np.resize(rng.standard_normal((lag, SHAPE[1])), SHAPE)


def pool(rng: np.random.Generator) -> Floats:
    signs = rng.choice([-1.0, 1.0], (SHAPE[0], 1))
    return signs * rng.standard_normal((30, SHAPE[1]))[rng.integers(0, 30, SHAPE[0])]


def tiled(rng: np.random.Generator) -> Floats:
    return np.tile(rng.standard_normal((SHAPE[0], SHAPE[1] // 4)), 4)


def laplace(rng: np.random.Generator) -> Floats:
    return rng.laplace(0, 0.5**0.5, SHAPE)


def cut_off(rng: np.random.Generator) -> Floats:
    return np.clip(rng.standard_normal((200, 2000)), -4, 4)


def quiet_tensor(rng: np.random.Generator) -> Floats:
    draws = gaussian(rng)
    draws[:, 400:410] *= 0.5
    return draws


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (common, "noise is correlated among weights"),
        (lagged(1, 0.5), "noise of step"),
        (lagged(7, 0.5), "noise of step"),
        (lagged(1, 0.98), "noise of one step is correlated with the next"),
        (lagged(3, 0.98), "noise of one step is correlated with the next but 2"),
        (repeated(5), "noise"),
        (pool, "noise of step"),
        (tiled, "noise"),
        (laplace, "noise is not Gaussian"),
        (cut_off, "noise is not Gaussian"),
        (lambda rng: rng.choice([-1.0, 1.0], SHAPE), "noise is not Gaussian"),
        (quiet_tensor, "noise .*has a multiplier of"),
        (lambda rng: 0.97 * gaussian(rng), "noise has a multiplier of 0.9[67]"),
    ],
)
def test_other_noise_is_named(draw: Callable[[np.random.Generator], Floats], words: str) -> None:
    found = noise_faults(draw(np.random.default_rng(1)), 1.0, TENSORS if draw is quiet_tensor else ())
    assert len(found) >= 1
    assert re.match(words, found[0])
