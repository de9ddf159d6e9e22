"""The peers do the work that ours does: one model, one round, the same numbers."""

import importlib
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch

from experiments.speed.environments import ROOT
from experiments.speed.probes.problem import FEDERATED
from pipelines.config.pipeline_settings import FedAvgConfig
from pipelines.data.partition.division import Partition
from pipelines.engines.central.torch_model import build_module
from pipelines.engines.federated.fed_avg import FedAvg
from pipelines.engines.interface import TrainingData
from pipelines.model.spec import ModelSpec, Weights, build_spec, initial_weights

COHORT, SIZE = 3, 6
Peer = Callable[[str], ModuleType]


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Peer:
    """Imports a peer's script as its own interpreter does: its folder first on the path."""
    monkeypatch.syspath_prepend(str(ROOT / "experiments" / "speed" / "peers"))
    return importlib.import_module


def problem() -> tuple[ModelSpec, Weights, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    spec = build_spec("cnn", features=(28, 28, 1), classes=10)
    weights = [w + rng.normal(scale=0.05, size=w.shape).astype(np.float32) for w in initial_weights(spec, rng)]
    images = rng.random((COHORT * SIZE, 28, 28, 1), np.float32)
    return spec, weights, images, rng.integers(0, 10, COHORT * SIZE)


def load(net: torch.nn.Module, weights: Weights) -> None:
    """Our channels-last weights in a network whose first dense layer reads its features channels-first."""
    dense = weights[4].reshape(4, 4, 32, 32).transpose(2, 0, 1, 3).reshape(512, 32)
    with torch.no_grad():
        for parameter, weight in zip(net.parameters(), [*weights[:4], dense, *weights[5:]], strict=True):
            axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[weight.ndim]
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(weight.transpose(axes))))


def torch_round(module: ModuleType, cnn: ModuleType, batch: int) -> torch.nn.Module:
    _, weights, images, labels = problem()
    net = cnn.build()
    load(net, weights)
    cohort = np.arange(COHORT * SIZE).reshape(COHORT, SIZE)
    module.run_round(net, torch.from_numpy(images.transpose(0, 3, 1, 2)), torch.from_numpy(labels), cohort, batch)
    return net


def graph_round(module: ModuleType, batch: int) -> Weights:
    _, weights, images, labels = problem()
    run = module.build_round(COHORT, SIZE, batch)
    shaped = images.reshape(COHORT, SIZE, 28, 28, 1), labels.reshape(COHORT, SIZE).astype(np.int32)
    return [value.numpy() for value in run(weights, *shaped)]


def difference(net: torch.nn.Module, cnn: ModuleType, weights: Weights) -> float:
    """The greatest difference of a weight."""
    other = cnn.build()
    load(other, weights)
    with torch.no_grad():
        return max(float((a - b).abs().max()) for a, b in zip(net.parameters(), other.parameters(), strict=True))


def test_the_peers_model_is_ours(peer: Peer) -> None:
    spec, weights, images, _ = problem()
    net = peer("cnn").build()
    load(net, weights)
    assert sum(parameter.numel() for parameter in net.parameters()) == spec.parameters == 26_010
    inputs = torch.from_numpy(images)
    ours = build_module(spec, weights)(inputs)
    assert torch.allclose(net(inputs.permute(0, 3, 1, 2)), ours, atol=1e-5)
    theirs = peer("tf_graph_round").forward(weights, images)
    assert np.allclose(theirs, ours.detach().numpy(), atol=1e-5)


def test_a_peers_round_of_several_steps_is_the_bounds(peer: Peer) -> None:
    cnn = peer("cnn")
    net = torch_round(peer("torch_round"), cnn, batch=2)
    assert difference(net, cnn, graph_round(peer("tf_graph_round"), batch=2)) < 1e-5
    assert difference(net, cnn, problem()[1]) > 1e-3


def test_ours_does_the_bounds_round(peer: Peer) -> None:
    # One batch a client, whose mean gradient knows no order.
    spec, weights, images, labels = problem()
    settings = FedAvgConfig.model_validate(
        {**FEDERATED, "name": "fed_avg", "engine": "fast", "weighting": "examples", "rounds": 1,
         "clients_per_round": COHORT, "local_batch_size": SIZE}
    )  # fmt: skip
    clients = Partition(tuple(np.arange(COHORT * SIZE).reshape(COHORT, SIZE)))
    data = TrainingData(inputs=images, labels=labels, partition=clients, spec=spec, initial_weights=weights)
    fit = FedAvg(settings, seed=0, threads=2).fit(data, lambda record: None)
    bound = graph_round(peer("tf_graph_round"), batch=SIZE)
    assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(fit.record.model.weights(), bound, strict=True))
