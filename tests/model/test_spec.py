"""A list of layers becomes an architecture whose sizes follow from the data."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from pipelines.config.model_settings import LayersConfig
from pipelines.core.errors import UserError
from pipelines.core.paths import REPOSITORY
from pipelines.model.spec import Conv, Dense, MaxPool, ModelSpec, Relu, Reshape, Tanh, build_layers


def spec_of(layers: Any, features: tuple[int, ...], classes: int = 3) -> ModelSpec:
    settings = LayersConfig.model_validate({"name": "layers", "layers": layers})
    return build_layers(settings.layers, features=features, classes=classes)


def test_sizes_follow_from_the_data() -> None:
    # 9 x 8 pixels: (9 + 2 - 3) // 2 + 1 = 5 rows, (8 - 2) // 1 + 1 = 7 columns; pools of 2 leave 2 x 3.
    conv = {"filters": 4, "kernel": [3, 2], "stride": [2, 1], "padding": [1, 0]}
    spec = spec_of([{"conv": conv}, "relu", {"max_pool": 2}, {"dense": 6}, "tanh"], (9, 8, 2))
    assert spec.layers == (
        Conv(2, 4, (3, 2), (2, 1), (1, 0)), Relu(), MaxPool((2, 2), (2, 2)),
        Reshape((24,)), Dense(24, 6), Tanh(), Dense(6, 3),
    )  # fmt: skip


def test_dense_layers_alone_take_any_data() -> None:
    assert spec_of([{"dense": 5}, "relu"], (7,)).layers == (Dense(7, 5), Relu(), Dense(5, 3))
    assert spec_of(["tanh"], (2, 2, 1)).layers == (Tanh(), Reshape((4,)), Dense(4, 3))


def test_a_pool_moves_by_its_window_unless_told() -> None:
    short, long = ({"max_pool": 3}, {"max_pool": {"window": [3, 3], "stride": 3}})
    assert spec_of([short], (9, 9, 1)) == spec_of([long], (9, 9, 1))
    assert spec_of([{"max_pool": {"window": 3, "stride": 1}}], (9, 9, 1)).layers[0] == MaxPool((3, 3), (1, 1))


def test_lenet_has_its_published_number_of_weights() -> None:
    preset: Any = OmegaConf.to_container(OmegaConf.load(REPOSITORY / "conf" / "model" / "lenet.yaml"))
    assert spec_of(preset["layers"], (28, 28, 1), 10).parameters == 61_706


@pytest.mark.parametrize(
    ("layers", "features", "line"),
    [
        (
            [{"conv": {"filters": 2, "kernel": 3}}],
            (7,),
            r"^model\.layers\.0: conv needs an image, but gets 7 features;",
        ),
        ([{"dense": 4}, {"max_pool": 2}], (8, 8, 1), r"^model\.layers\.1: max_pool needs an image, but gets 4 .*; put"),
        ([{"max_pool": 2}, {"max_pool": 5}], (8, 8, 1), r"^model\.layers\.1: max_pool .* 5 x 5 .* 4 x 4; make it smal"),
    ],
)
def test_a_layer_that_does_not_fit_is_named(layers: Any, features: tuple[int, ...], line: str) -> None:
    with pytest.raises(UserError, match=line):
        spec_of(layers, features)
