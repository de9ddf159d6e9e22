"""Small federated problems, and settings for them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipelines.config.pipeline_settings import DpFedAvgConfig, FedAvgConfig
from pipelines.data.partition.division import Partition
from pipelines.engines.interface import RoundRecord, TrainingData
from pipelines.model.spec import build_spec, initial_weights
from pipelines.privacy.mechanisms.base import PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism

SETTINGS: dict[str, Any] = {
    "engine": "fast",
    "rounds": 1,
    "clients_per_round": 3,
    "local_epochs": 1,
    "local_batch_size": 100,
    "client_optimizer": "sgd",
    "client_learning_rate": 0.1,
    "client_momentum": 0.0,
    "server_optimizer": "sgd",
    "server_learning_rate": 1.0,
    "server_momentum": 0.0,
    "proximal_strength": 0.0,
}


def fed_avg_settings(**changes: Any) -> FedAvgConfig:
    return FedAvgConfig(**{"name": "fed_avg", "weighting": "examples"} | SETTINGS | changes)


def dp_settings(**changes: Any) -> DpFedAvgConfig:
    return DpFedAvgConfig(**{"name": "dp_fed_avg"} | SETTINGS | changes)


def user_plan(**changes: Any) -> PoissonGaussianMechanism:
    values: dict[str, Any] = {
        "unit": PrivacyUnit.USER,
        "population": 10,
        "sampling_probability": 1.0,
        "steps": 1,
        "noise_multiplier": 0.0,
        "clip_norm": 1.0,
        "delta": 1e-3,
    }
    return PoissonGaussianMechanism(**values | changes)


def federated_data(sizes: list[int], *, features: int = 5, classes: int = 3, seed: int = 0) -> TrainingData:
    """A learnable problem: labels are the largest of a random linear map, which differs in no way among clients."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(sum(sizes), features)).astype(np.float32)
    labels = np.argmax(inputs @ rng.normal(size=(features, classes)), axis=1)
    clients = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    spec = build_spec("linear", features=(features,), classes=classes)
    return TrainingData(
        inputs=inputs,
        labels=labels,
        partition=Partition(tuple(clients)),
        spec=spec,
        initial_weights=[rng.normal(size=value.shape).astype(np.float32) for value in initial_weights(spec, rng)],
    )


def ignore(record: RoundRecord) -> None:
    """An `on_round` that looks away."""


@pytest.fixture
def collect() -> tuple[list[RoundRecord], Callable[[RoundRecord], None]]:
    """A list, and an `on_round` that fills it."""
    records: list[RoundRecord] = []
    return records, records.append
