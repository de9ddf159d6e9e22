"""Federated averaging against the same rounds worked in numpy."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipelines.core.errors import DivergedError, UserError
from pipelines.engines.federated.fed_avg import FedAvg
from pipelines.engines.interface import RoundRecord, TrainingData
from pipelines.model.spec import Weights
from tests.engines.federated.conftest import fed_avg_settings, federated_data, ignore


def gradient(weights: Weights, inputs: np.ndarray, labels: np.ndarray) -> Weights:
    """Of the mean cross-entropy of softmax regression."""
    logits = inputs @ weights[0] + weights[1]
    excess = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    excess[np.arange(len(labels)), labels] -= 1
    return [inputs.T @ excess / len(labels), excess.mean(0)]


def train_client(data: TrainingData, indices: np.ndarray, *, steps: int, rate: float, **rule: float) -> Weights:
    """SGD on the whole client, with optional `momentum` and `proximal` strength."""
    weights = [value.astype(float) for value in data.initial_weights]
    velocity = [np.zeros_like(value) for value in weights]
    for _ in range(steps):
        slopes = gradient(weights, data.inputs[indices], data.labels[indices])
        for at, (slope, start) in enumerate(zip(slopes, data.initial_weights, strict=True)):
            slope = slope + rule.get("proximal", 0) * (weights[at] - start)
            velocity[at] = rule.get("momentum", 0) * velocity[at] + slope
            weights[at] = weights[at] - rate * velocity[at]
    return weights


def average(clients: list[Weights], shares: list[float]) -> Weights:
    return [np.average(values, axis=0, weights=shares) for values in zip(*clients, strict=True)]


def fitted(data: TrainingData, **changes: Any) -> Weights:
    return FedAvg(fed_avg_settings(**changes), seed=0, threads=None).fit(data, ignore).record.model.weights()


def loss(weights: Weights, data: TrainingData) -> float:
    logits = data.inputs @ weights[0] + weights[1]
    picked = logits[np.arange(len(logits)), data.labels]
    return float(np.mean(np.log(np.exp(logits).sum(1)) - picked))


@pytest.mark.parametrize(
    ("changes", "rule", "shares"),
    [
        ({"local_epochs": 3}, {}, [2, 5, 9]),
        ({"local_epochs": 3, "weighting": "uniform"}, {}, [1, 1, 1]),
        ({"local_epochs": 3, "client_momentum": 0.9}, {"momentum": 0.9}, [2, 5, 9]),
        ({"local_epochs": 3, "proximal_strength": 2.0}, {"proximal": 2.0}, [2, 5, 9]),
    ],
)
def test_one_round_equals_the_round_worked_by_hand(
    changes: dict[str, Any], rule: dict[str, float], shares: list[float]
) -> None:
    data = federated_data([2, 5, 9])
    assert data.partition is not None
    clients = [train_client(data, indices, steps=3, rate=0.1, **rule) for indices in data.partition.clients]
    for mine, expected in zip(fitted(data, **changes), average(clients, shares), strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-5)


def test_batches_smaller_than_a_client_are_steps_of_their_own() -> None:
    data = federated_data([4])
    one_by_one = fitted(data, clients_per_round=1, local_batch_size=1)
    (whole,) = [train_client(data, np.arange(4), steps=4, rate=0.025)]
    # Four steps on one example each move about as far as four of a quarter of the rate on all; never the same way.
    assert not np.allclose(one_by_one[0], whole[0], atol=1e-6)
    np.testing.assert_allclose(one_by_one[0], whole[0], atol=0.2)


def test_proximal_term_pulls_towards_the_start() -> None:
    data = federated_data([8, 8, 8])
    free, tied = (fitted(data, local_epochs=10, proximal_strength=mu) for mu in (0.0, 5.0))
    start = data.initial_weights[0]
    assert np.linalg.norm(tied[0] - start) < 0.5 * np.linalg.norm(free[0] - start)


@pytest.mark.parametrize(
    "changes",
    [
        {"client_optimizer": "adam", "client_learning_rate": 0.05},
        {"server_momentum": 0.9, "server_learning_rate": 0.5},
        {"server_optimizer": "adam", "server_learning_rate": 0.1},
        {"server_optimizer": "adagrad", "server_learning_rate": 0.1},
        {"server_optimizer": "yogi", "server_learning_rate": 0.1},
    ],
)
def test_every_optimizer_learns(changes: dict[str, Any]) -> None:
    data = federated_data([8, 8, 8, 8])
    assert loss(fitted(data, rounds=8, local_epochs=2, **changes), data) < 0.9 * loss(data.initial_weights, data)


def test_momentum_that_would_be_ignored_is_refused() -> None:
    with pytest.raises(UserError, match=r"pipeline\.server_momentum=0\.9 is for pipeline\.server_optimizer=sgd"):
        fitted(federated_data([2, 2, 2]), server_optimizer="adam", server_momentum=0.9)


def test_records_count_rounds_and_keep_their_models(
    collect: tuple[list[RoundRecord], Callable[[RoundRecord], None]],
) -> None:
    data, (records, on_round) = federated_data([4, 4, 4, 4]), collect
    settings = fed_avg_settings(rounds=3, clients_per_round=2, local_epochs=5)
    fit = FedAvg(settings, seed=0, threads=None).fit(data, on_round)
    assert [(r.step, r.steps, r.examples) for r in records] == [(1, 3, 40), (2, 3, 80), (3, 3, 120)]
    assert 0 < records[0].train_s < records[1].train_s < records[2].train_s
    losses = [loss(r.model.weights(), data) for r in records]
    assert losses[0] > losses[1] > losses[2]
    assert fit.record is records[-1]
    assert fit.executed is None
    assert fit.facts["engine"] == "tff 0.87.0 (fast)"


def test_same_seed_gives_the_same_run() -> None:
    data = federated_data([5] * 8)
    settings = fed_avg_settings(rounds=3, local_batch_size=2)
    runs = [FedAvg(settings, seed=seed, threads=None).fit(data, ignore).record.model.weights()[0] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.allclose(runs[0], runs[2])


def test_more_clients_a_round_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match=r"pipeline\.clients_per_round=3 exceeds the 2 clients"):
        fitted(federated_data([2, 2]))


def test_a_federated_pipeline_needs_a_partition() -> None:
    with pytest.raises(UserError, match="choose a partition"):
        fitted(replace(federated_data([2, 2, 2]), partition=None))


@pytest.mark.parametrize("weighting", ["examples", "uniform"])
def test_one_diverging_client_ends_the_run(weighting: str) -> None:
    data = federated_data([2, 2, 2])
    data.inputs[:2] = 3e38  # its logits overflow; those of the others do not
    with pytest.raises(DivergedError, match="step 1: the update of 1 of 3 clients"):
        fitted(data, weighting=weighting)


def test_diverging_clients_end_the_run_instead_of_freezing_the_model() -> None:
    data = federated_data([2, 2, 2])
    data.inputs[:] = 3e38
    with pytest.raises(DivergedError, match="the update of 3 of 3 clients"):
        fitted(data)


def test_weights_that_overflow_end_the_run() -> None:
    with pytest.raises(DivergedError, match="a weight is not finite"):
        fitted(federated_data([2, 2, 2]), client_learning_rate=1e5, server_learning_rate=1e38)


def test_an_exception_of_the_callback_ends_training() -> None:
    def stop(record: RoundRecord) -> None:
        raise KeyError(record.step)

    with pytest.raises(KeyError, match="1"):
        FedAvg(fed_avg_settings(rounds=3), seed=0, threads=None).fit(federated_data([2, 2, 2]), stop)
