"""Random Fourier features stand for a Gaussian kernel between directions."""

import numpy as np

from pipelines.data.features.fourier import RandomFourier


def test_products_of_features_tend_to_the_kernel() -> None:
    x = np.random.default_rng(0).standard_normal((6, 2, 3)).astype(np.float32)
    found = RandomFourier((2, 3), count=200_000, bandwidth=0.7)(x)
    assert found.shape == (6, 200_000)
    assert found.dtype == np.float32
    unit = x.reshape(6, 6) / np.linalg.norm(x.reshape(6, 6), axis=1, keepdims=True)
    squares = ((unit[:, None] - unit[None]) ** 2).sum(axis=2)
    assert np.allclose(found @ found.T / 200_000, np.exp(-squares / (2 * 0.7**2)), atol=0.015)


def test_features_depend_on_direction_only_and_repeat_every_run() -> None:
    x = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    first, second = (RandomFourier((5,), count=16, bandwidth=1.0) for _ in range(2))
    assert np.allclose(first(x), second(9 * x), atol=1e-5)
    assert np.isfinite(first(0 * x)).all()
