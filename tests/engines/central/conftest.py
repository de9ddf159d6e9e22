"""A small problem that a person can check."""

from collections.abc import Callable

import numpy as np
import pytest

from pipelines.config.pipeline_settings import DpSgdConfig, DpSgdUsersConfig
from pipelines.engines.interface import TrainingData
from pipelines.model.spec import build_spec, initial_weights

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
        *relu, name = model.split()
        activation = "relu" if relu else "tanh"
        spec = build_spec(name, features=features, classes=classes, widths=(7,), activation=activation)  # type: ignore[arg-type]
        return TrainingData(
            inputs=inputs.astype(np.float32),
            labels=labels.astype(np.int64),
            partition=None,
            spec=spec,
            initial_weights=initial_weights(spec, rng),
        )

    return make
