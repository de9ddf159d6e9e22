"""Canaries in training data: certificates that hold for private training, and are large without privacy."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from pipelines.auditing.canaries import ClientCanaries, ExampleCanaries, plant_clients, plant_examples
from pipelines.auditing.canary_trial import CanaryTrial, count_correct
from pipelines.auditing.finding import Finding
from pipelines.auditing.scores import ClientScores
from pipelines.config.pipeline_settings import DpSgdConfig, DpSgdUsersConfig, SgdConfig
from pipelines.core.errors import UserError
from pipelines.data.partition.division import Partition
from pipelines.engines.central.dp_sgd import DpSgd
from pipelines.engines.central.sgd import Sgd
from pipelines.engines.central.training import Hardware
from pipelines.engines.federated.tff_model import TensorFlowModel
from pipelines.engines.interface import RoundRecord, TrainingData
from tests.auditing.conftest import PIPELINES, blobs, plan_of

CPU = Hardware(device="cpu", threads=1)


def ignore(_: RoundRecord) -> None:
    pass


def usual(data: TrainingData) -> float:
    return float(np.median(np.linalg.norm(data.inputs, axis=1)))


def planted(data: TrainingData, count: int, seed: int | None = None, *, noise: bool = True) -> ExampleCanaries:
    streams = {"content": np.random.default_rng(1), "coins": np.random.default_rng(seed)}
    return plant_examples(data, count, length=usual(data) if noise else None, **streams)


def trained(trial: CanaryTrial, pipeline: Any, **asked: Any) -> Finding:
    pipeline.fit(trial.data, trial.watching(ignore))
    values: dict[str, Any] = {"audit": "one_run", "guesses": 60, "claim": None, "delta": 1e-5, "confidence": 0.95}
    return trial.conclude(**values | asked)


def sgd(**changes: Any) -> Sgd:
    settings = PIPELINES["sgd"] | {"name": "sgd", "learning_rate": 0.5, "epochs": 30.0} | changes
    return Sgd(SgdConfig.model_validate(settings), seed=0, hardware=CPU)


def test_canaries_replace_examples_and_excluded_canaries_are_gone() -> None:
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
    assert np.linalg.norm(found.examples.inputs, axis=1) == pytest.approx(usual(data), rel=1e-4)
    assert found.included.any()
    assert not np.array_equal(found.included, planted(data, 40, seed=1).included)


def test_mislabelled_canaries_are_real_inputs_under_wrong_labels() -> None:
    data = blobs(100)
    found = planted(data, 40, seed=0, noise=False)
    labels = {row.tobytes(): label for row, label in zip(data.inputs, data.labels, strict=True)}
    for example, label in zip(found.examples.inputs, found.examples.labels, strict=True):
        assert labels[example.tobytes()] != label


@pytest.mark.parametrize("stay", [False, True])
def test_canary_clients_send_their_direction_or_nothing(stay: bool) -> None:
    owners = np.sort(np.arange(90) % 30)
    data = replace(blobs(90), partition=Partition.from_owners(owners, 30))
    streams = {"content": np.random.default_rng(0), "coins": np.random.default_rng(0)}
    found = plant_clients(data, 12, length=3.0, stay=stay, **streams)
    out = int((~found.included).sum())
    assert 2 < out < 10
    assert np.linalg.norm(found.directions, axis=1) == pytest.approx(np.ones(12), rel=1e-5)
    assert found.directions.shape == (12, data.spec.parameters)
    partition, canaries = found.data.partition, found.data.canaries
    assert partition is not None
    assert canaries is not None
    assert len(partition) == 30 - (0 if stay else out)
    assert len(canaries.rows) == 12 - (0 if stay else out)
    for client, row in canaries.rows.items():
        expected = 3.0 * found.directions[row] if found.included[row] else np.zeros(data.spec.parameters)
        np.testing.assert_allclose(canaries.updates[row], expected, rtol=1e-6)
        assert len(partition.clients[client]) == 3
    # Whoever is no canary holds what it held.
    originals = {data.inputs[indices].tobytes() for indices in Partition.from_owners(owners, 30).clients}
    assert {found.data.inputs[indices].tobytes() for indices in partition.clients} <= originals


def toy_rounds(found: ClientCanaries, moves: list[np.ndarray]) -> Iterator[RoundRecord]:
    """Records of rounds that take `moves` away from the weights, one after the other."""
    spec, weights = found.data.spec, np.concatenate([value.ravel() for value in found.data.initial_weights])
    for step, move in enumerate(moves, 1):
        weights = weights - move
        model = TensorFlowModel(spec, spec.shaped(weights.astype(np.float32)))
        yield RoundRecord(step=step, steps=len(moves), examples=1, train_s=0, model=model)


@pytest.mark.parametrize("score", ["final", "largest"])
def test_client_scores_are_cosines_with_the_change(score: Any) -> None:
    data = replace(blobs(90), partition=Partition.from_owners(np.arange(90) % 30, 30))
    streams = {"content": np.random.default_rng(0), "coins": np.random.default_rng(0)}
    found = plant_clients(data, 12, length=1.0, stay=True, **streams)
    scores = ClientScores(found, score)
    d = found.directions
    moves = [2 * d[0] - d[1], 0 * d[0], -5 * d[0]]
    for record in toy_rounds(found, moves):
        scores.observe(record)
    # Over all rounds -3 d0 - d1, of which the first canary has the larger part; in the best one 2 d0 - d1.
    vector = sum(moves) if score == "final" else moves[0]
    assert scores.now()[0] == pytest.approx(d[0] @ vector / np.linalg.norm(vector), abs=1e-4)
    assert (scores.now()[0] > 0.8) == (score == "largest")


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
        parallel = np.eye(4)[label] - 0.25
        gradient = np.concatenate([np.outer(example, parallel), parallel[None]])
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


def test_bounds_of_private_training_keep_their_confidence() -> None:
    data = blobs(300, features=60)
    plan = plan_of("dp_sgd", population=300, sampling_probability=0.2, steps=15, noise_multiplier=2.5, delta=1e-4)
    claim = plan.epsilon()
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
    # Over noise seeds 1.4 to 2.5, and 0.2 to 0.8.
    assert bounds[0] > 1.2
    assert bounds[1] < 1.0


def trained_over_users(
    sigma: float, score: Any, *, seed: int | None = None, features: int = 60
) -> tuple[Finding, float]:
    """A private run over 100 users, of whom 60 become canary clients; and its claim."""
    data = replace(blobs(200, features=features), partition=Partition.from_owners(np.arange(200) % 100, 100))
    content, coins = np.random.default_rng(1), np.random.default_rng(seed)
    plan = plan_of(
        "dp_sgd_users", population=100, sampling_probability=0.2, steps=10, noise_multiplier=sigma, delta=1e-4
    )  # fmt: skip
    found = plant_clients(data, 60, length=10 * plan.clip_norm, stay=False, content=content, coins=coins)
    settings = DpSgdUsersConfig.model_validate({"name": "dp_sgd_users"} | PIPELINES["dp_sgd_users"] | {"momentum": 0.0})
    claim = plan.epsilon()
    engine = DpSgd(settings, plan, noise_seed=seed, hardware=CPU)
    trial = CanaryTrial(found, score)
    asked = {"audit": "canary_clients", "guesses": 40, "claim": claim, "delta": plan.delta}
    return trained(trial, engine, **asked), claim


@pytest.mark.parametrize("score", ["final", "largest"])
def test_bounds_by_canary_clients_keep_their_confidence(score: Any) -> None:
    found = [trained_over_users(2.5, score) for _ in range(40)]
    assert found[0][1] < 1.5
    assert sum(one.refuted for one, _ in found) <= binom.ppf(0.999, 40, 0.05)


def test_canary_clients_tell_little_noise_from_enough() -> None:
    bounds = [trained_over_users(sigma, "final", seed=0, features=1000)[0].epsilon_lower_bound for sigma in (0.02, 3.0)]
    assert bounds[0] > 1
    assert bounds[1] < 0.5
