"""Scattering features are those of the literature, and of one image at a time."""

import numpy as np
import pytest
import torch
from kymatio.torch import Scattering2D
from numpy.typing import NDArray

from pipelines.core.errors import UserError
from pipelines.data.digits import load_digits
from pipelines.data.features.scattering import Scattering


def images(n: int = 6, side: int = 28, channels: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(0).random((n, side, side, channels), dtype=np.float32)


def test_one_channel_equals_kymatio_and_group_norm_in_torch() -> None:
    x = images()
    scattered = Scattering2D(J=2, shape=(28, 28))(torch.from_numpy(x[..., 0]))
    expected = torch.nn.GroupNorm(27, 81, affine=False)(scattered).permute(0, 2, 3, 1).numpy()
    transform = Scattering((28, 28, 1), scales=2, angles=8, groups=27)
    assert transform.shape == (7, 7, 81)
    assert transform(x).dtype == np.float32
    assert np.allclose(transform(x), expected, atol=1e-4)


def test_channels_are_scattered_and_normalised_each_by_itself() -> None:
    x = images(channels=2, side=16)
    both = Scattering((16, 16, 2), scales=1, angles=4, groups=5)(x)
    assert both.shape == (6, 8, 8, 10)
    alone = Scattering((16, 16, 1), scales=1, angles=4, groups=5)
    for channel in (0, 1):
        assert np.allclose(both[..., 5 * channel :][..., :5], alone(x[..., [channel]]), atol=1e-5)


def test_no_image_matters_for_another() -> None:
    x = load_digits().train.inputs[:5]
    transform = Scattering((8, 8, 1), scales=2, angles=8, groups=27)
    together = transform(x)
    assert all(np.allclose(together[i], transform(x[i : i + 1])[0], atol=1e-5) for i in range(5))


def test_turned_images_are_averaged_after_normalisation() -> None:
    x = images(n=2)
    x[:] = x * (np.hypot(*np.mgrid[-13.5:14, -13.5:14]) < 13)[..., None]  # nothing to lose in the corners
    keep = {"scales": 2, "angles": 8, "groups": 27}
    both, none = (Scattering((28, 28, 1), **keep, rotations=angles) for angles in ((0.0, 90.0), (0.0,)))
    turned = np.ascontiguousarray(np.rot90(x, axes=(2, 1)))
    expected = [(none(x) + none(other)) / 2 for other in (turned, np.ascontiguousarray(np.rot90(x, axes=(1, 2))))]
    assert min(np.abs(both(x) - one).max() for one in expected) < 1e-3


def test_without_groups_coefficients_grow_with_the_image() -> None:
    x = images()
    plain = Scattering((28, 28, 1), scales=2, angles=8, groups=None)
    assert np.allclose(3 * plain(x), plain(3 * x), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "scales", "groups", "words"),
    [
        ((105,), 2, 27, "needs images; this dataset has 105 plain features"),
        ((8, 8, 1), 3, None, r"features\.scales=3 is too large for images of 8 x 8; they need at least 16"),
        ((28, 28, 1), 2, 10, r"features\.groups=10 must divide the 81 coefficients"),
    ],
)
def test_what_does_not_fit_is_refused(shape: tuple[int, ...], scales: int, groups: int | None, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Scattering(shape, scales=scales, angles=8, groups=groups)
