"""Configurations of small runs, as the command line would compose them."""

import itertools
from typing import Any

import numpy as np
import pytest

from pipelines.auditing import conduct, observation
from pipelines.config.pipeline_table import PIPELINES as PIPELINE_TABLE
from pipelines.config.schema import Config, parse
from pipelines.core.randomness import public_stream
from pipelines.engines.interface import TrainingData
from pipelines.model.spec import build_spec, initial_weights
from pipelines.privacy.mechanisms.base import PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism


@pytest.fixture(autouse=True)
def known_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound of 95 % may be wrong once in 20 times: here it is the same every time."""
    seeds = itertools.count(1)
    monkeypatch.setattr(observation, "secret_seed", lambda: next(seeds))
    monkeypatch.setattr(conduct, "private_stream", lambda _, name: public_stream(next(seeds), name))


CENTRAL = {
    "optimizer": "sgd", "learning_rate": 1.0, "momentum": 0.9, "weight_decay": 0.0, "schedule": "cosine",
    "batch_size": 100, "epochs": 10.0, "ema_decay": 0.9,
}  # fmt: skip
PIPELINES: dict[str, dict[str, Any]] = {
    "sgd": CENTRAL,
    "dp_sgd": CENTRAL | {"max_physical_batch": 1000, "grad_sample": "auto"},
    "dp_sgd_users": CENTRAL | {"max_physical_batch": 1000},
    "dp_fed_avg": {
        "engine": "fast", "rounds": 20, "clients_per_round": 50, "local_epochs": 2, "local_batch_size": 8,
        "client_optimizer": "adam", "client_learning_rate": 0.1, "client_momentum": 0.0, "server_optimizer": "yogi",
        "server_learning_rate": 0.3, "server_momentum": 0.0, "proximal_strength": 0.1,
        "ema_decay": 0.9,
    },
}  # fmt: skip


def config_of(pipeline: str, **changes: Any) -> Config:
    """A run of digits; `changes` are of the pipeline."""
    return parse(
        {
            "dataset": {"name": "digits"},
            "model": {"name": "linear"},
            "partition": {"name": "iid", "clients": 100},
            "pipeline": {"name": pipeline, **PIPELINES[pipeline], **changes},
            "privacy": {
                "name": "fixed", "epsilon": None, "noise_multiplier": 1.0, "delta": 1e-5, "clip_norm": 0.5,
                "population": None, "noise_seed": None,
            },
            "tracking": {"uri": None, "experiment": None, "log_model": False},
            "seed": 0, "device": "cpu", "threads": 2, "evaluations": 1, "debug": False,
        }
    )  # fmt: skip


def plan_of(pipeline: str, **changes: Any) -> PoissonGaussianMechanism:
    """A plan for the pipeline's unit."""
    values: dict[str, Any] = {
        "unit": PrivacyUnit(PIPELINE_TABLE[pipeline].unit or "example"),
        "population": 1000, "sampling_probability": 0.1, "steps": 100, "noise_multiplier": 1.0, "clip_norm": 0.5,
        "delta": 1e-5,
    }  # fmt: skip
    return PoissonGaussianMechanism(**values | changes)


def blobs(n: int, *, features: int = 40, classes: int = 4, seed: int = 0) -> TrainingData:
    """A learnable problem without users."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    inputs = rng.normal(size=(n, features)) * 0.3
    inputs[np.arange(n), labels] += 2.0
    spec = build_spec("linear", features=(features,), classes=classes)
    return TrainingData(
        inputs=inputs.astype(np.float32),
        labels=labels,
        partition=None,
        spec=spec,
        initial_weights=initial_weights(spec, rng),
    )
