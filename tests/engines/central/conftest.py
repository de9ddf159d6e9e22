"""A small problem that a person can check."""

from collections.abc import Callable

import numpy as np
import pytest

from pipelines.config.model_settings import LayersConfig
from pipelines.config.pipeline_settings import DpSgdConfig, DpSgdUsersConfig
from pipelines.engines.interface import TrainingData
from pipelines.model.spec import ModelSpec, build_layers, build_spec, initial_weights

LAYERS = LayersConfig.model_validate(
    {
        "name": "layers",
        "layers": [
            {"conv": {"filters": 16, "kernel": 3, "padding": 1}}, "relu", {"max_pool": 2},
            {"conv": {"filters": 16, "kernel": [2, 3], "stride": [1, 2]}}, "tanh",
            {"max_pool": {"window": 2, "stride": [2, 1]}}, {"dense": 16}, "relu",
        ],
    }
)  # fmt: skip
"""Layers for images of 12 x 12 pixels and more; the compiled kernel knows them."""
MakeData = Callable[..., TrainingData]


def plain_dp_sgd(**changes: object) -> DpSgdConfig:
    """One step of SGD at rate 1 unless `changes` say otherwise."""
    values = {
        "name": "dp_sgd", "optimizer": "sgd", "learning_rate": 1.0, "momentum": 0.0, "weight_decay": 0.0,
        "schedule": "constant", "batch_size": 4, "epochs": 1, "max_physical_batch": 1000, "grad_sample": "auto",
    }  # fmt: skip
    return DpSgdConfig.model_validate(values | changes)


def plain_dp_sgd_users(**changes: object) -> DpSgdUsersConfig:
    """The same over users, each with a mean gradient."""
    values = plain_dp_sgd().model_dump(exclude={"grad_sample"}) | {"name": "dp_sgd_users"}
    return DpSgdUsersConfig.model_validate(values | changes)


def spec_of(model: str, *, features: tuple[int, ...], classes: int, widths: tuple[int, ...]) -> ModelSpec:
    """The spec of a model's name, such as "cnn", "relu cnn" or "layers"."""
    if model == "layers":
        return build_layers(LAYERS.layers, features=features, classes=classes)
    *relu, name = model.split()
    activation = "relu" if relu else "tanh"
    return build_spec(name, features=features, classes=classes, widths=widths, activation=activation)  # type: ignore[arg-type]


@pytest.fixture
def make_data() -> MakeData:
    """Returns a function that makes separable blobs for a model name, such as "cnn" or "relu cnn", and feature
    shape."""

    def make(
        model: str = "linear", features: tuple[int, ...] = (5,), n: int = 40, classes: int = 3, seed: int = 0
    ) -> TrainingData:
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, classes, n)
        inputs = rng.normal(size=(n, *features)) * 0.5
        inputs.reshape(n, -1)[np.arange(n), labels] += 2.0
        spec = spec_of(model, features=features, classes=classes, widths=(7,))
        return TrainingData(
            inputs=inputs.astype(np.float32),
            labels=labels.astype(np.int64),
            partition=None,
            spec=spec,
            initial_weights=initial_weights(spec, rng),
        )

    return make
