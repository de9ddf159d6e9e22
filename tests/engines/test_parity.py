"""The two engines are one algorithm: from equal weights they agree to 1e-5."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from pipelines.config.pipeline_settings import DpFedAvgConfig, DpSgdConfig, FedAvgConfig
from pipelines.data.partition.division import Partition
from pipelines.engines.central.dp_sgd import DpSgd
from pipelines.engines.central.torch_model import TorchModel, build_module, read_weights
from pipelines.engines.central.training import Hardware
from pipelines.engines.federated.dp_fed_avg import DpFedAvg
from pipelines.engines.federated.fed_avg import FedAvg
from pipelines.engines.federated.tff_model import TensorFlowModel
from pipelines.engines.interface import Fit, RoundRecord, TrainingData
from pipelines.model.spec import ModelSpec, Weights, initial_weights
from pipelines.privacy.mechanisms.base import PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism
from tests.engines.central.conftest import spec_of as named_spec

CPU = Hardware(device="cpu", threads=2)
MODELS = [
    ("linear", (6,)),
    ("mlp", (4, 4, 1)),
    ("cnn", (8, 8, 1)),
    ("cnn", (14, 14, 3)),
    ("cnn", (12,)),
    ("relu mlp", (6,)),
    ("relu cnn", (8, 8, 1)),
    ("layers", (13, 12, 2)),
]


def spec_of(model: str, features: tuple[int, ...]) -> ModelSpec:
    return named_spec(model, features=features, classes=3, widths=(7, 5))


def make_data(model: str, features: tuple[int, ...], sizes: list[int]) -> TrainingData:
    rng = np.random.default_rng(11)
    spec, n = spec_of(model, features), sum(sizes)
    order = rng.permutation(n)
    ends = list(itertools.accumulate(sizes))
    return TrainingData(
        inputs=rng.normal(size=(n, *features)).astype(np.float32),
        labels=rng.integers(0, 3, n),
        partition=Partition(tuple(np.sort(order[end - size : end]) for size, end in zip(sizes, ends, strict=True))),
        spec=spec,
        initial_weights=[
            w + rng.normal(scale=0.05, size=w.shape).astype(np.float32) for w in initial_weights(spec, rng)
        ],
    )


def ignore(_: RoundRecord) -> None:
    pass


FEDERATED = {
    "engine": "fast", "rounds": 1, "local_epochs": 1, "local_batch_size": 100, "client_optimizer": "sgd",
    "client_learning_rate": 0.3, "client_momentum": 0.0, "server_optimizer": "sgd",
    "server_learning_rate": 1.0, "server_momentum": 0.0, "proximal_strength": 0.0,
}  # fmt: skip


def close(ours: Weights, theirs: Weights) -> bool:
    return all(np.allclose(a, b, atol=1e-5, rtol=0) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    ("model", "features"), [*MODELS, ("linear", (8, 8, 1)), ("cnn", (28, 28, 1)), ("cnn", (5, 5, 2)), ("cnn", (3,))]
)
def test_equal_weights_give_equal_logits(model: str, features: tuple[int, ...]) -> None:
    spec = spec_of(model, features)
    rng = np.random.default_rng(0)
    weights = [w + rng.normal(scale=0.1, size=w.shape).astype(np.float32) for w in initial_weights(spec, rng)]
    inputs = rng.normal(size=(9, *features)).astype(np.float32)
    ours, theirs = TorchModel(build_module(spec, weights)), TensorFlowModel(spec, weights)
    assert ours.logits(inputs) == pytest.approx(theirs.logits(inputs), abs=1e-5)
    assert close(ours.weights(), theirs.weights())


@pytest.mark.parametrize("weighting", ["examples", "uniform"])
@pytest.mark.parametrize(("model", "features"), MODELS)
def test_a_federated_round_equals_the_same_round_in_pytorch(
    model: str, features: tuple[int, ...], weighting: str
) -> None:
    sizes = [1, 4, 9]
    data = make_data(model, features, sizes)
    settings = FedAvgConfig.model_validate(
        {**FEDERATED, "name": "fed_avg", "weighting": weighting, "clients_per_round": 3, "local_epochs": 3}
    )
    fit = FedAvg(settings, seed=0, threads=2).fit(data, ignore)
    assert data.partition is not None
    updates = [local_update(data, client, steps=3) for client in data.partition.clients]
    shares = np.array(sizes if weighting == "examples" else [1, 1, 1], float)
    shares /= shares.sum()
    expected = [
        start + sum(share * update[k] for share, update in zip(shares, updates, strict=True))
        for k, start in enumerate(data.initial_weights)
    ]
    assert close(fit.record.model.weights(), expected)


def local_update(data: TrainingData, client: np.ndarray, steps: int) -> Weights:
    """Full-batch gradient steps on one client's examples in plain PyTorch; returns the change of the weights."""
    module = build_module(data.spec, data.initial_weights)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.3)
    inputs, labels = torch.from_numpy(data.inputs[client]), torch.from_numpy(data.labels[client])
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(module(inputs), labels).backward()
        optimizer.step()
    return [after - before for after, before in zip(read_weights(module), data.initial_weights, strict=True)]


@pytest.mark.parametrize(("model", "features"), MODELS)
def test_one_example_a_client_makes_dp_fed_avg_dp_sgd(model: str, features: tuple[int, ...]) -> None:
    # Everyone takes part (q = 1) without noise; the server's rate and the clients' multiply to dp_sgd's.
    n, rounds, clip = 12, 4, 0.2
    data = make_data(model, features, [1] * n)

    def plan(unit: PrivacyUnit, clip_norm: float) -> PoissonGaussianMechanism:
        return PoissonGaussianMechanism(
            unit=unit, population=n, sampling_probability=1.0, steps=rounds, noise_multiplier=0.0,
            clip_norm=clip_norm, delta=1e-3,
        )  # fmt: skip

    central = DpSgdConfig(
        name="dp_sgd", optimizer="sgd", learning_rate=0.6, momentum=0.5, weight_decay=0.0, schedule="constant",
        batch_size=n, epochs=rounds, max_physical_batch=5, grad_sample="auto",
    )  # fmt: skip
    federated = DpFedAvgConfig.model_validate(
        {**FEDERATED, "name": "dp_fed_avg", "rounds": rounds, "clients_per_round": n, "server_learning_rate": 2.0,
         "server_momentum": 0.5}
    )  # fmt: skip
    ours = trajectory(DpSgd(central, plan(PrivacyUnit.EXAMPLE, clip), noise_seed=0, hardware=CPU).fit, data)
    # A client's delta is its rate times the gradient, so its clip norm is too: 0.3 * 0.2.
    theirs = trajectory(DpFedAvg(federated, plan(PrivacyUnit.USER, 0.3 * clip), noise_seed=0, threads=2).fit, data)
    assert len(ours) == len(theirs) == rounds
    assert all(close(a, b) for a, b in zip(ours, theirs, strict=True))
    assert not close(ours[0], ours[-1])


def trajectory(fit: Callable[..., Fit], data: TrainingData) -> list[Weights]:
    """The weights after every step."""
    weights: list[Weights] = []
    fit(data, lambda record: weights.append(record.model.weights()))
    return weights
