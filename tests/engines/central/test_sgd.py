"""Plain training in PyTorch."""

import numpy as np
import pytest
import torch

from pipelines.config.pipeline_settings import SgdConfig
from pipelines.core.errors import DivergedError, UserError
from pipelines.engines.central.sgd import Sgd, shuffled_batches
from pipelines.engines.central.training import Hardware, learning_rate
from pipelines.engines.interface import RoundRecord

from .conftest import MakeData

CPU = Hardware(device="cpu", threads=1)


def sgd(**changes: object) -> SgdConfig:
    values = {
        "name": "sgd", "optimizer": "sgd", "learning_rate": 0.5, "momentum": 0.0, "weight_decay": 0.0,
        "schedule": "constant", "batch_size": 8, "epochs": 3,
    }  # fmt: skip
    return SgdConfig.model_validate(values | changes)


def ignore(_: RoundRecord) -> None:
    pass


def test_one_full_batch_step_is_the_hand_computed_gradient(make_data: MakeData) -> None:
    data = make_data(n=8)
    fit = Sgd(sgd(epochs=1), seed=0, hardware=CPU).fit(data, ignore)
    # Zero weights give uniform probabilities 1/3; the gradient is x^T (p - onehot) / n.
    error = np.full((8, 3), 1 / 3) - np.eye(3)[data.labels]
    kernel, bias = fit.record.model.weights()
    assert kernel == pytest.approx(-0.5 * data.inputs.T @ error / 8, abs=1e-6)
    assert bias == pytest.approx(-0.5 * error.mean(axis=0), abs=1e-6)
    assert fit.executed is None


def test_every_example_comes_once_an_epoch_in_a_new_order() -> None:
    batches = shuffled_batches(10, 4, np.random.default_rng(0))
    epochs = [[next(batches) for _ in range(3)] for _ in range(2)]
    for epoch in epochs:
        assert [len(batch) for batch in epoch] == [4, 4, 2]
        assert sorted(np.concatenate(epoch).tolist()) == list(range(10))
    assert not np.array_equal(np.concatenate(epochs[0]), np.concatenate(epochs[1]))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_every_optimizer_learns_separable_classes(make_data: MakeData, optimizer: str, model: str) -> None:
    data = make_data(model, n=120)
    settings = sgd(optimizer=optimizer, learning_rate=0.05, momentum=0.9, epochs=15, schedule="cosine")
    model_ = Sgd(settings, seed=1, hardware=CPU).fit(data, ignore).record.model
    assert np.mean(model_.logits(data.inputs).argmax(1) == data.labels) > 0.9


def test_a_run_is_reproduced_by_its_seed(make_data: MakeData) -> None:
    data = make_data()
    first, again, other = (
        Sgd(sgd(), seed=seed, hardware=CPU).fit(data, ignore).record.model.weights()[0] for seed in (3, 3, 4)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_cosine_falls_from_the_full_rate_towards_zero() -> None:
    settings = sgd(schedule="cosine", learning_rate=2.0)
    assert learning_rate(settings, 1, 4) == 2.0
    assert learning_rate(settings, 3, 4) == pytest.approx(1.0)  # half way: (1 + cos(pi / 2)) / 2
    assert 0 < learning_rate(settings, 4, 4) < 0.3
    assert learning_rate(sgd(), 4, 4) == 0.5


def test_steps_and_examples_are_reported_as_they_happen(make_data: MakeData) -> None:
    records: list[RoundRecord] = []
    fit = Sgd(sgd(batch_size=16, epochs=1.5), seed=0, hardware=CPU).fit(make_data(n=40), records.append)
    # ceil(40 / 16) = 3 batches an epoch, ceil(1.5 * 3) = 5 steps: 16, 16, 8, 16, 16.
    assert [record.step for record in records] == [1, 2, 3, 4, 5]
    assert [record.examples for record in records] == [16, 32, 40, 56, 72]
    assert all(record.steps == 5 for record in records)
    assert fit.record is records[-1]


def test_divergence_names_its_step_and_a_remedy(make_data: MakeData) -> None:
    with pytest.raises(DivergedError, match=r"diverged at step \d+: a weight is not finite; lower the learning rate"):
        Sgd(sgd(learning_rate=1e38, momentum=0.99, epochs=20), seed=0, hardware=CPU).fit(make_data(), ignore)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_without_cuda_is_refused(make_data: MakeData) -> None:
    with pytest.raises(UserError, match="device=cuda but PyTorch sees no CUDA device"):
        Sgd(sgd(), seed=0, hardware=Hardware(device="cuda", threads=1)).fit(make_data(), ignore)
