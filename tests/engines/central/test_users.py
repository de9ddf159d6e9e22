"""Private training whose items are users does what its plan says."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.core.errors import UserError
from pipelines.data.partition.division import Partition
from pipelines.engines.central.dp_sgd import DpSgd
from pipelines.engines.central.training import Hardware
from pipelines.engines.central.users import clipped_update
from pipelines.engines.interface import Fit, RoundRecord, TrainingData
from pipelines.model.spec import Weights, build_spec, initial_weights
from pipelines.privacy.mechanisms.base import PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism

from .conftest import MakeData, plain_dp_sgd, plain_dp_sgd_users


def plan(**changes: object) -> PoissonGaussianMechanism:
    values = {
        "unit": PrivacyUnit.USER, "population": 4, "sampling_probability": 1.0, "steps": 1,
        "noise_multiplier": 0.0, "clip_norm": 1e3, "delta": 1e-3,
    }  # fmt: skip
    return PoissonGaussianMechanism(**(values | changes))  # type: ignore[arg-type]


def fit(data: TrainingData, mechanism: PoissonGaussianMechanism, noise_seed: int | None = 0, **changes: Any) -> Fit:
    pipeline = DpSgd(
        plain_dp_sgd_users(**changes), mechanism, noise_seed=noise_seed, hardware=Hardware(device="cpu", threads=1)
    )
    return pipeline.fit(data, lambda _: None)


def users(inputs: np.ndarray, labels: list[int], sizes: list[int], classes: int = 2) -> TrainingData:
    """A linear model at zero, and users who hold so many of the examples, one after the other."""
    spec = build_spec("linear", features=inputs.shape[1:], classes=classes)
    return TrainingData(
        inputs=inputs.astype(np.float32),
        labels=np.array(labels, np.int64),
        partition=Partition(tuple(np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1]))),
        spec=spec,
        initial_weights=initial_weights(spec, np.random.default_rng(0)),
    )


# User 0 has x = 1 and 3, both of class 0; user 1 has x = 0 of class 1. At zero weights every probability is 1/2.
TWO = users(np.array([[1.0], [3.0], [0.0]]), [0, 0, 1], [2, 1])


def divided(data: TrainingData, sizes: list[int]) -> TrainingData:
    return replace(data, partition=Partition(tuple(np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1]))))


@pytest.mark.parametrize("physical", [1000, 1])
def test_a_users_gradient_is_the_mean_of_examples_clipped_once(physical: int) -> None:
    # User 0: kernel (-1, 1), the mean of (-.5, .5) and (-1.5, 1.5); bias (-.5, .5); norm sqrt(2.5). Clipped by half.
    # User 1: kernel (0, 0), bias (.5, -.5); norm sqrt(.5), within. Sum over the public 4, against the gradient:
    kernel, bias = fit(TWO, plan(clip_norm=np.sqrt(2.5) / 2), max_physical_batch=physical).record.model.weights()
    assert kernel == pytest.approx(np.array([[0.5, -0.5]]) / 4, abs=1e-6)
    assert bias == pytest.approx(np.array([0.25 - 0.5, -0.25 + 0.5]) / 4, abs=1e-6)


def test_a_users_delta_is_what_its_local_steps_change() -> None:
    # One example a step, x = 0, class 1: only the bias moves, twice by rate 0.2.
    # First step: p = 1/2, bias (-.1, .1). Second: p1 = 1 / (1 + e^-.2) = .549834, so another .2 * .450166 = .090033.
    only = divided(replace(TWO, inputs=TWO.inputs[2:], labels=TWO.labels[2:]), [1])
    kernel, bias = fit(
        only, plan(population=1, delta=0.1), user_update="delta", local_epochs=2, local_learning_rate=0.2
    ).record.model.weights()
    assert not kernel.any()
    assert bias == pytest.approx(np.array([-0.190033, 0.190033]), abs=1e-6)


def test_local_batches_are_steps_of_their_own() -> None:
    data = divided(TWO, [3])
    mechanism = plan(population=1, delta=0.1)
    local: dict[str, Any] = {"user_update": "delta", "local_learning_rate": 0.1}
    whole, singly = (fit(data, mechanism, local_batch_size=b, **local).record.model.weights() for b in (3, 1))
    mean = fit(data, mechanism, learning_rate=0.1).record.model.weights()
    assert whole[0] == pytest.approx(mean[0], abs=1e-6)
    assert np.linalg.norm(singly[0]) > 2 * np.linalg.norm(whole[0])


def test_every_user_starts_from_the_weights_of_the_step(make_data: MakeData) -> None:
    data, sizes = make_data("mlp", n=12), [6, 4, 2]
    mechanism = plan(population=3)
    local: dict[str, Any] = {"user_update": "delta", "local_epochs": 3, "local_learning_rate": 0.5}
    ends = np.cumsum(sizes)
    parts = [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    alone = [
        moved(divided(replace(data, inputs=data.inputs[part], labels=data.labels[part]), [size]), mechanism, **local)
        for part, size in zip(parts, sizes, strict=True)
    ]
    assert moved(divided(data, sizes), mechanism, **local) == pytest.approx(np.sum(alone, axis=0), abs=1e-5)


def moved(data: TrainingData, mechanism: PoissonGaussianMechanism, **changes: Any) -> np.ndarray:
    """The change of all weights as one vector."""
    return change_of(data, fit(data, mechanism, **changes))


def change_of(data: TrainingData, fitted: Fit) -> np.ndarray:
    pairs: list[Weights] = [fitted.record.model.weights(), data.initial_weights]
    flat = [np.concatenate([value.ravel() for value in weights]) for weights in pairs]
    return flat[0] - flat[1]


@pytest.mark.parametrize("model", ["linear", "mlp", "cnn"])
def test_one_example_a_user_makes_gradients_those_of_examples(make_data: MakeData, model: str) -> None:
    data = make_data(model, (8, 8, 1), n=12)
    mechanism = plan(population=12, steps=4, clip_norm=0.5, noise_multiplier=0.5)
    over_examples = DpSgd(
        plain_dp_sgd(momentum=0.5), replace(mechanism, unit=PrivacyUnit.EXAMPLE), noise_seed=0,
        hardware=Hardware(device="cpu", threads=1),
    )  # fmt: skip
    by_example = change_of(data, over_examples.fit(data, lambda _: None))
    assert moved(divided(data, [1] * 12), mechanism, momentum=0.5) == pytest.approx(by_example, abs=1e-5)


@pytest.mark.parametrize("update", ["gradient", "delta"])
def test_a_cap_holds_and_takes_other_examples_each_step(update: str) -> None:
    # Example i is unit vector i, so that row i of the kernel moves if and only if it takes part.
    data = users(np.eye(10), [0] * 10, [10])
    mechanism = plan(population=1, delta=0.1, steps=12)
    kernels = [data.initial_weights[0]]
    pipeline = DpSgd(
        plain_dp_sgd_users(user_update=update, user_examples=3, local_batch_size=2), mechanism, noise_seed=0,
        hardware=Hardware(device="cpu", threads=1),
    )  # fmt: skip
    pipeline.fit(data, lambda record: kernels.append(record.model.weights()[0]))
    taken = (np.diff(np.array(kernels), axis=0) != 0).any(axis=2)
    assert (taken.sum(axis=1) == 3).all()
    assert len({tuple(row) for row in taken}) > 6
    assert taken.any(axis=0).all()


@pytest.mark.parametrize("update", ["gradient", "delta"])
@pytest.mark.parametrize("scale", [1e15, 3e38])
def test_an_exploding_user_moves_the_model_within_the_clip(update: str, scale: float) -> None:
    data = users(np.array([[1.0], [1.0], [1.0]]), [0, 0, 1], [2, 1])
    data.inputs[:2] = scale
    change = moved(data, plan(population=2, clip_norm=0.5), user_update=update, local_learning_rate=1e6, local_epochs=2)
    assert np.isfinite(change).all()
    assert 0 < np.linalg.norm(change) <= 0.5 * (1 + 1e-4)


def test_clipping_is_tensorflows_and_leaves_out_what_is_not_finite() -> None:
    pair = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])]
    clipped, norm = clipped_update(pair, 2.0)
    assert (norm, clipped[0].tolist(), clipped[1].tolist()) == (5.0, pytest.approx([1.2, 0.0]), [pytest.approx([1.6])])
    assert clipped_update(pair, 7.0)[0][0].tolist() == [3.0, 0.0]
    broken, norm = clipped_update([torch.tensor([float("nan"), 1.0]), torch.tensor([[4.0]])], 2.0)
    assert (norm, broken[0].tolist(), broken[1].tolist()) == (0.0, [0.0, 0.0], [[0.0]])
    reached, norm = clipped_update([torch.tensor([float("inf"), 0.0]), torch.tensor([[0.0]])], 2.0)
    assert (float(norm), reached[0].tolist()) == (pytest.approx(1e15), pytest.approx([2.0, 0.0]))


def test_one_user_changes_neither_noise_nor_expected_batch_size(make_data: MakeData) -> None:
    # Zero inputs leave only the bias' gradient; the noise on the kernel must be identical.
    mechanism = plan(population=20, noise_multiplier=1.0, sampling_probability=0.5, clip_norm=0.5)
    data = make_data(n=42)
    silent = replace(data, inputs=np.zeros_like(data.inputs))
    kernels = [fit(divided(silent, [2] * n), mechanism).record.model.weights()[0] for n in (19, 20, 21)]
    assert kernels[0].any()
    assert np.array_equal(kernels[0], kernels[1])
    assert np.array_equal(kernels[1], kernels[2])


def test_noise_reaches_the_weights_once_a_step_as_claimed(make_data: MakeData) -> None:
    # Zero inputs: every change of the kernel is noise. 30 steps of 3 * 0.5 / 4 on 2,000 weights.
    data = make_data(features=(200,), classes=10, n=40)
    silent = divided(replace(data, inputs=np.zeros_like(data.inputs)), [10] * 4)
    mechanism = plan(noise_multiplier=3.0, clip_norm=0.5, steps=30)
    kernel, _ = fit(silent, mechanism, noise_seed=None).record.model.weights()
    chi_square = float((kernel**2).sum()) / (30 * (3.0 * 0.5 / 4) ** 2)
    # With 2,000 degrees of freedom: mean 2000, standard deviation sqrt(4000).
    assert abs(chi_square - 2000) < 5 * np.sqrt(4000)


def test_an_empty_cohort_is_a_step_of_noise(make_data: MakeData) -> None:
    data = divided(make_data(), [10] * 4)
    rare = plan(sampling_probability=1e-9, steps=3)
    assert not moved(data, rare).any()
    noisy = fit(data, replace(rare, noise_multiplier=1.0))
    assert np.any(noisy.record.model.weights()[0])
    assert noisy.executed == replace(rare, noise_multiplier=1.0)


def test_users_are_reported_as_expected_never_as_realised(make_data: MakeData) -> None:
    records: list[RoundRecord] = []
    mechanism = plan(population=8, sampling_probability=0.25, steps=4)
    pipeline = DpSgd(plain_dp_sgd_users(), mechanism, noise_seed=1, hardware=Hardware(device="cpu", threads=1))
    fitted = pipeline.fit(divided(make_data(), [1, 2, 30, 7]), records.append)
    assert [record.examples for record in records] == [2, 4, 6, 8]
    assert set(fitted.facts) == {"engine", "device", "threads", "user_update"}


def test_users_need_a_partition(make_data: MakeData) -> None:
    with pytest.raises(UserError, match=r"pipeline=dp_sgd_users needs users: choose a partition"):
        fit(make_data(), plan())


def test_a_plan_for_examples_is_refused() -> None:
    with pytest.raises(ValueError, match="unit is example does not fit dp_sgd_users"):
        fit(TWO, plan(unit=PrivacyUnit.EXAMPLE))
