"""Canaries in training data: certificates that hold for private training, and are large without privacy."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from pipelines.audit.canaries import Canaries, plant_clients, plant_examples
from pipelines.audit.finding import Finding
from pipelines.audit.trial import CanaryTrial, count_correct
from pipelines.central.dp_sgd import DpSgd
from pipelines.central.sgd import Sgd
from pipelines.central.training import Hardware
from pipelines.config import DpSgdConfig, SgdConfig
from pipelines.errors import UserError
from pipelines.partition.partition import Partition
from pipelines.pipeline import RoundRecord, TrainingData
from pipelines.privacy.accounting import epsilon
from tests.audit.conftest import PIPELINES, blobs, plan_of

CPU = Hardware(device="cpu", threads=1)


def ignore(_: RoundRecord) -> None:
    pass


def planted(data: TrainingData, count: int, seed: int | None = None, *, noise: bool = True) -> Canaries:
    return plant_examples(data, count, noise=noise, content=np.random.default_rng(1), coins=np.random.default_rng(seed))


def trained(trial: CanaryTrial, pipeline: Any, **asked: Any) -> Finding:
    pipeline.fit(trial.data, trial.watching(ignore))
    values: dict[str, Any] = {"audit": "one_run", "guesses": 60, "claim": None, "delta": 1e-5, "confidence": 0.95}
    return trial.conclude(**values | asked)


def sgd(**changes: Any) -> Sgd:
    settings = PIPELINES["sgd"] | {"name": "sgd", "learning_rate": 0.5, "epochs": 30.0} | changes
    return Sgd(SgdConfig.model_validate(settings), seed=0, hardware=CPU)


def test_canaries_take_the_places_of_examples_and_those_that_are_out_are_gone() -> None:
    data = blobs(100)
    found = planted(data, 40, seed=0)
    out = int((~found.included).sum())
    assert 5 < out < 35
    assert len(found.data.labels) == len(found.data.inputs) == 100 - out
    originals = {row.tobytes() for row in data.inputs}
    rows = {row.tobytes() for row in found.data.inputs}
    assert len(rows & originals) == 60
    for example, there in zip(found.examples.inputs, found.included, strict=True):
        assert (example.tobytes() in rows) == there
    lengths = np.linalg.norm(found.examples.inputs, axis=1)
    assert lengths == pytest.approx(np.median(np.linalg.norm(data.inputs, axis=1)), rel=1e-4)
    assert found.included.any()
    assert not np.array_equal(found.included, planted(data, 40, seed=1).included)


def test_mislabelled_canaries_are_real_inputs_under_wrong_labels() -> None:
    data = blobs(100)
    found = planted(data, 40, seed=0, noise=False)
    labels = {row.tobytes(): label for row, label in zip(data.inputs, data.labels, strict=True)}
    for example, label in zip(found.examples.inputs, found.examples.labels, strict=True):
        assert labels[example.tobytes()] != label


def test_canary_clients_leave_with_everything_they_hold() -> None:
    owners = np.sort(np.arange(90) % 30)
    data = replace(blobs(90), partition=Partition.from_owners(owners, 30))
    found = plant_clients(data, 12, content=np.random.default_rng(0), coins=np.random.default_rng(0))
    assert found.data.partition is not None
    out = int((~found.included).sum())
    assert len(found.data.partition) == 30 - out
    assert (found.data.partition.sizes == 3).all()
    held = {found.data.inputs[client[0]].tobytes() for client in found.data.partition.clients}
    for example, label, there in zip(found.examples.inputs, found.examples.labels, found.included, strict=True):
        assert (example.tobytes() in held) == there
        mine = (found.data.inputs == example).all(axis=1)
        assert mine.sum() == (3 if there else 0)
        assert (found.data.labels[mine] == label).all()


@pytest.mark.parametrize("count", [5, 100])
def test_too_few_canaries_or_too_many_are_one_clear_line(count: int) -> None:
    with pytest.raises(UserError, match=rf"audit\.canaries={count}"):
        planted(blobs(100), count)


def test_guesses_are_the_extremes() -> None:
    scores, included = np.array([0.1, 5.0, -3.0, 2.0, 0.2, -1.0]), np.array([True, True, True, False, False, False])
    assert count_correct(scores, included, 2) == 1
    assert count_correct(scores, included, 4) == 2
    assert count_correct(-scores, ~included, 4) == 2
    with pytest.raises(UserError, match=r"audit\.guesses=3"):
        count_correct(scores, included, 3)


def test_white_box_score_is_the_movement_along_the_canarys_gradient() -> None:
    # One step on all data from zero weights: with p = 1/4 everywhere the gradient at a canary is known by hand.
    data = blobs(60)
    trial = CanaryTrial(found := planted(data, 20, seed=0), "white_box")
    weights: list[Any] = []
    sgd(epochs=1.0, batch_size=1000, learning_rate=0.5).fit(
        trial.data, trial.watching(lambda record: weights.append(record.model.weights()))
    )
    (kernel, bias) = weights[0]
    for example, label, score in zip(found.examples.inputs, found.examples.labels, trial.scores(), strict=True):
        towards = np.eye(4)[label] - 0.25
        gradient = np.concatenate([np.outer(example, towards), towards[None]])
        expected = (np.concatenate([kernel, bias[None]]) * gradient).sum() / np.linalg.norm(gradient)
        assert score == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("score", "least"), [("white_box", 1.5), ("loss", 0.5)])
def test_training_without_privacy_gives_a_large_bound(score: Any, least: float) -> None:
    data = blobs(300, features=300)
    found = trained(CanaryTrial(planted(data, 200, seed=0), score), sgd())
    # All 60 right without delta would be 3.0. Some that are out get a small loss by chance.
    assert found.epsilon_lower_bound > least
    assert found.epsilon_estimate is not None
    assert found.epsilon_estimate > 5
    assert not found.refuted


def test_bounds_of_private_training_exceed_the_claim_no_more_often_than_their_confidence_allows() -> None:
    data = blobs(300, features=60)
    plan = plan_of("dp_sgd", population=300, sampling_probability=0.2, steps=15, noise_multiplier=2.5, delta=1e-4)
    claim = epsilon(plan)
    assert claim < 1.5
    settings = DpSgdConfig.model_validate({"name": "dp_sgd"} | PIPELINES["dp_sgd"] | {"momentum": 0.0})
    found = [
        trained(
            CanaryTrial(planted(data, 150), "white_box"),
            DpSgd(settings, plan, noise_seed=None, hardware=CPU), claim=claim, delta=plan.delta,
        )
        for _ in range(40)
    ]  # fmt: skip
    assert sum(one.refuted for one in found) <= binom.ppf(0.999, 40, 0.05)


def test_little_noise_is_told_from_enough() -> None:
    data = blobs(300, features=300)
    bounds = []
    for sigma in (0.05, 3.0):
        plan = plan_of("dp_sgd", population=300, sampling_probability=0.5, steps=20, noise_multiplier=sigma)
        settings = DpSgdConfig.model_validate({"name": "dp_sgd"} | PIPELINES["dp_sgd"] | {"momentum": 0.0})
        trial = CanaryTrial(planted(data, 200, seed=0), "white_box")
        bounds.append(trained(trial, DpSgd(settings, plan, noise_seed=0, hardware=CPU)).epsilon_lower_bound)
    assert bounds[0] > 0.8
    assert bounds[1] < 0.5
