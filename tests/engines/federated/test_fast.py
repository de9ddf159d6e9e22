"""The fast engine against the stock one: from equal weights, cohorts and orders they agree to 1e-5."""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest

from pipelines.data.partition.division import Partition
from pipelines.engines.federated.algorithm import UNROLLED_STEPS, LocalWork
from pipelines.engines.federated.dp_fed_avg import DpFedAvg
from pipelines.engines.federated.fed_avg import FedAvg
from pipelines.engines.federated.learning_process import Server
from pipelines.engines.federated.runtime import ensure_worker
from pipelines.engines.interface import TrainingData
from pipelines.model.spec import Weights, build_spec, initial_weights
from pipelines.privacy.mechanisms.base import AdaptiveClipping
from tests.engines.federated.conftest import dp_settings, fed_avg_settings, federated_data, ignore, user_plan

SIZES = [1, 2, 7, 13, 1, 30, 5, 9]  # one example, less than a batch, and many batches with a rest
COPIES = 6
ROUNDS = {"rounds": 4, "clients_per_round": 5, "local_batch_size": 4}


def data_for(model: Literal["linear", "mlp", "cnn"]) -> TrainingData:
    if model == "linear":
        return federated_data(SIZES)
    features = (28, 28, 1) if model == "cnn" else (5,)
    flat = federated_data(SIZES, features=int(np.prod(features)))
    spec = build_spec(model, features=features, classes=3, widths=(6, 4) if model == "mlp" else ())
    weights = initial_weights(spec, np.random.default_rng(1))
    return replace(flat, inputs=flat.inputs.reshape(-1, *features), spec=spec, initial_weights=weights)


def fed_avg(engine: str, data: TrainingData, **changes: Any) -> Weights:
    settings = fed_avg_settings(engine=engine, **ROUNDS | changes)
    return FedAvg(settings, seed=0, threads=None).fit(data, ignore).record.model.weights()


def dp_fed_avg(engine: str, data: TrainingData, **changes: Any) -> Weights:
    settings = dp_settings(engine=engine, local_batch_size=4, client_learning_rate=0.5)
    plan = user_plan(population=8 * COPIES, steps=4, clip_norm=0.3, sampling_probability=0.6, **changes)
    return DpFedAvg(settings, plan, noise_seed=3, threads=None).fit(data, ignore).record.model.weights()


def assert_agree(fast: Weights, stock: Weights, data: TrainingData) -> None:
    for mine, theirs, start in zip(fast, stock, data.initial_weights, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5, rtol=0)
        assert np.abs(mine - start).max() > 1e-3  # they moved


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("linear", {"weighting": "uniform", "local_epochs": 2, "client_momentum": 0.9}),
        ("linear", {"local_batch_size": 1, "local_epochs": 2}),  # up to 60 local steps: through the loop
        ("mlp", {"proximal_strength": 2.0, "server_optimizer": "adam", "server_learning_rate": 0.01}),
        ("cnn", {}),
        ("linear", {"client_optimizer": "adam", "client_learning_rate": 0.05}),
    ],
)
def test_fed_avg_agrees_with_the_stock_engine(model: Literal["linear", "mlp", "cnn"], changes: dict[str, Any]) -> None:
    data = data_for(model)
    assert_agree(fed_avg("fast", data, **changes), fed_avg("stock", data, **changes), data)


ADAPTIVE = AdaptiveClipping(target_quantile=0.5, learning_rate=0.2, count_stddev=0.3)


@pytest.mark.parametrize("changes", [{"noise_multiplier": 0.0}, {"noise_multiplier": 0.5, "adaptive": ADAPTIVE}])
def test_dp_fed_avg_agrees_with_the_stock_engine(changes: dict[str, Any]) -> None:
    data = federated_data(SIZES * COPIES)  # cohorts of 20 to 40, of which the fast engine pads every other
    assert_agree(dp_fed_avg("fast", data, **changes), dp_fed_avg("stock", data, **changes), data)


def test_a_graph_serves_clients_of_many_sizes() -> None:
    layouts = [LocalWork.of(batch_size=10, epochs=1, largest=largest) for largest in range(1, 10_000, 7)]
    assert len(set(layouts)) == 5  # 1, 2, 4, 8 steps, and more
    for work, largest in zip(layouts, range(1, 10_000, 7), strict=True):
        assert work.loops == (largest > 10 * UNROLLED_STEPS)
        assert work.loops or work.unrolled * 10 >= largest


@pytest.mark.parametrize("part", ["inputs", "labels", "partition"])
def test_new_data_of_the_same_shape_is_told_apart(part: str) -> None:
    before = federated_data([4] * 5)
    fed_avg("fast", before)
    assert before.partition is not None
    after = {
        "inputs": replace(before, inputs=-before.inputs),
        "labels": replace(before, labels=(before.labels + 1) % 3),
        "partition": replace(before, partition=Partition(before.partition.clients[::-1])),
    }[part]
    assert_agree(fed_avg("fast", after), fed_avg("stock", after), after)


def test_a_place_that_comes_again_holds_new_data() -> None:
    # The third data set lies where the first one did, in shapes that have a process already.
    first = federated_data([4] * 5)
    for turn in range(4):
        data = replace(first, inputs=(1 + turn) * first.inputs, labels=(first.labels + turn) % 3)
        assert_agree(fed_avg("fast", data), fed_avg("stock", data), data)


def test_servers_in_turn_keep_to_their_own_data() -> None:
    data, settings = federated_data([4] * 5), fed_avg_settings()
    ensure_worker(None)
    ours, others = (
        Server(settings, replace(data, labels=labels), "examples", order=np.random.default_rng(0))
        for labels in (data.labels, (data.labels + 1) % 3)
    )
    alone = Server(settings, data, "examples", order=np.random.default_rng(0))
    for _ in range(2):
        for server in (ours, others, alone):
            server.round([0, 1, 2])
    for mine, expected in zip(ours.weights, alone.weights, strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-6)
