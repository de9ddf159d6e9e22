"""Clients that an audit plants: what they send reaches the weights clipped and summed like any client's."""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest

from pipelines.config.pipeline_settings import DpSgdUsersConfig
from pipelines.engines.central.dp_sgd import DpSgd
from pipelines.engines.central.training import Hardware
from pipelines.engines.federated.dp_fed_avg import DpFedAvg
from pipelines.engines.federated.fed_avg import FedAvg
from pipelines.engines.interface import CanaryUpdates, TrainingData
from pipelines.model.spec import build_spec, initial_weights
from tests.engines.federated.conftest import dp_settings, fed_avg_settings, federated_data, ignore, user_plan

CLIP, USERS = 0.3, 5
CENTRAL: dict[str, Any] = {
    "name": "dp_sgd_users", "optimizer": "sgd", "learning_rate": 1.0, "momentum": 0.0, "weight_decay": 0.0,
    "schedule": "constant", "batch_size": USERS, "epochs": 1, "max_physical_batch": 100,
    "user_update": "delta", "local_epochs": 1, "local_batch_size": 4, "local_learning_rate": 0.1,
}  # fmt: skip


def planted(model: Literal["linear", "cnn"], rows: dict[int, int]) -> TrainingData:
    """Five users of 2 to 6 examples; those in `rows` are canaries."""
    features = (28, 28, 1) if model == "cnn" else (5,)
    flat = federated_data([2, 3, 4, 5, 6], features=int(np.prod(features)))
    spec = build_spec(model, features=features, classes=3)
    rng = np.random.default_rng(1)
    updates = rng.normal(size=(3, spec.parameters)).astype(np.float32)
    return replace(
        flat, inputs=flat.inputs.reshape(-1, *features), spec=spec, initial_weights=initial_weights(spec, rng),
        canaries=CanaryUpdates(rows=rows, updates=updates),
    )  # fmt: skip


def lost(engine: str, data: TrainingData, steps: int = 1, **changes: Any) -> np.ndarray:
    """What one round of all users takes away from the weights; there is no noise."""
    plan = user_plan(population=USERS, clip_norm=CLIP, steps=steps)
    pipeline: Any
    if engine == "fed_avg":
        pipeline = FedAvg(fed_avg_settings(clients_per_round=USERS, local_batch_size=4, **changes), seed=0, threads=2)
    elif engine == "dp_fed_avg":
        pipeline = DpFedAvg(dp_settings(local_batch_size=4, **changes), plan, noise_seed=3, threads=2)
    else:
        settings = DpSgdUsersConfig.model_validate(CENTRAL | changes)
        pipeline = DpSgd(settings, plan, noise_seed=3, hardware=Hardware(device="cpu", threads=1))
    after = pipeline.fit(data, ignore).record.model.weights()
    return np.concatenate([(a - b).ravel() for a, b in zip(data.initial_weights, after, strict=True)])


@pytest.mark.parametrize("model", ["linear", "cnn"])
@pytest.mark.parametrize("engine", ["dp_fed_avg", "dp_sgd"])
def test_a_canary_moves_the_model_by_its_clipped_direction(engine: str, model: Literal["linear", "cnn"]) -> None:
    data = planted(model, {})
    alone = lost(engine, data)
    assert data.canaries is not None
    first, second = (u * CLIP / np.linalg.norm(u) for u in data.canaries.updates[:2])
    # Every user turned canary, twice the same one: nothing is left of training.
    all_of_them = lost(engine, planted(model, {0: 0, 1: 0, 2: 1, 3: 1, 4: 1}))
    np.testing.assert_allclose(all_of_them, (2 * first + 3 * second) / USERS, atol=1e-6)
    # One canary: the other four users move the model as they would anyway.
    others = lost(engine, planted(model, {3: 1})) - second / USERS
    norms = [np.linalg.norm(value) for value in (others, alone, alone - others)]
    assert norms[0] > 0.01
    assert norms[2] <= CLIP / USERS + 1e-5  # what user 3 did


def test_both_engines_take_a_canary_alike() -> None:
    data = planted("cnn", {1: 2, 4: 0})
    central = lost("dp_sgd", data, steps=3)
    federated = lost("dp_fed_avg", data, steps=3, client_learning_rate=0.1)
    np.testing.assert_allclose(federated, central, atol=1e-5)


def test_without_privacy_a_canary_weighs_as_its_examples_do() -> None:
    data = planted("linear", dict.fromkeys(range(USERS), 0) | {4: 1})
    assert data.canaries is not None
    first, second = data.canaries.updates[:2]
    np.testing.assert_allclose(lost("fed_avg", data), (14 * first + 6 * second) / 20, atol=1e-5)
    uniform = lost("fed_avg", data, weighting="uniform")
    np.testing.assert_allclose(uniform, (4 * first + second) / USERS, atol=1e-5)
