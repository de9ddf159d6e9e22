"""Neither what a user does at home nor what the server does with the noised sum touches the guarantee."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipelines.engines.federated.dp_fed_avg import DpFedAvg
from pipelines.engines.interface import TrainingData
from pipelines.privacy.mechanisms.base import Mechanism
from pipelines.privacy.mechanisms.tree import TreeMechanism
from tests.engines.federated.conftest import dp_settings, federated_data, ignore, user_plan

CLIP = 0.2
LOCAL_WORK = [
    {"local_epochs": 6, "local_batch_size": 2},
    {"client_learning_rate": 1e4},
    {"client_optimizer": "adam", "client_learning_rate": 0.5, "local_epochs": 3},
    {"proximal_strength": 50.0, "client_momentum": 0.9, "local_epochs": 3},
]
POISSON = user_plan(population=4, clip_norm=CLIP, delta=0.01)
TREE = TreeMechanism(
    population=4, clients_per_round=4, steps=1, restart_every=1, noise_multiplier=0.0, clip_norm=CLIP, delta=0.01
)


def moved(data: TrainingData, plan: Mechanism, **changes: Any) -> np.ndarray:
    fit = DpFedAvg(dp_settings(**changes), plan, noise_seed=0, threads=None).fit(data, ignore)
    pairs = zip(fit.record.model.weights(), data.initial_weights, strict=True)
    return np.concatenate([(after - before).ravel() for after, before in pairs]).astype(np.float64)


@pytest.mark.parametrize(("plan", "work"), [*((POISSON, work) for work in LOCAL_WORK), (TREE, LOCAL_WORK[-1])])
def test_contribution_never_exceeds_the_clip_whatever_the_local_work(plan: Mechanism, work: dict[str, Any]) -> None:
    contribution = 4 * moved(federated_data([7]), plan, **work)  # 4 normalises
    assert 0.1 * CLIP < np.linalg.norm(contribution) <= CLIP * (1 + 1e-4)


def test_server_optimizers_see_the_noised_mean_alone() -> None:
    plan = replace(POISSON, noise_multiplier=20.0)
    # SGD at rate 1 adds the noised mean as it is. All others' first steps follow from it by hand.
    data = federated_data([7, 5, 6])
    mean = moved(data, plan)
    assert np.abs(mean).min() > 1e-4
    half = moved(data, plan, server_learning_rate=0.5, server_momentum=0.9)
    np.testing.assert_allclose(half, 0.5 * mean, atol=1e-6)
    # Adam's first step is the rate times mean / (|mean| + epsilon / sqrt(1 - 0.999)), with epsilon 1e-7.
    adam = moved(data, plan, server_optimizer="adam", server_learning_rate=0.1)
    np.testing.assert_allclose(adam, 0.1 * mean / (np.abs(mean) + 1e-7 / np.sqrt(1e-3)), rtol=1e-3, atol=1e-6)
