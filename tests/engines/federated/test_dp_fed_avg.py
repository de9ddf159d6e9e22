"""What the private aggregation really does, measured on the weights that leave it."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dp_accounting
import numpy as np
import pytest
from scipy.stats import chi2

from pipelines.core.errors import GuaranteeError
from pipelines.engines.federated.dp_fed_avg import DpFedAvg, noise_of
from pipelines.engines.federated.fed_avg import FedAvg
from pipelines.engines.federated.learning_process import Server
from pipelines.engines.federated.runtime import ensure_worker
from pipelines.engines.interface import Fit, RoundRecord, TrainingData
from pipelines.model.spec import Weights
from pipelines.privacy.mechanisms.base import AdaptiveClipping, Mechanism, PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism
from pipelines.privacy.mechanisms.tree import TreeMechanism
from tests.engines.federated.conftest import dp_settings, fed_avg_settings, federated_data, ignore, user_plan

SILENT = 1e-20  # a client learning rate at which nothing but noise reaches the weights
NEVER = 1e-12  # a sampling probability at which no user ever joins
ADAPTIVE = AdaptiveClipping(target_quantile=0.5, learning_rate=0.2, count_stddev=2.0)


def fit(data: TrainingData, plan: Mechanism, *, noise_seed: int | None = 0, **changes: Any) -> Fit:
    return DpFedAvg(dp_settings(**changes), plan, noise_seed=noise_seed, threads=None).fit(data, ignore)


def moved(fit: Fit, data: TrainingData) -> np.ndarray:
    """The change of all weights as one vector."""
    pairs: list[Weights] = [fit.record.model.weights(), data.initial_weights]
    flat = [np.concatenate([value.ravel() for value in weights]) for weights in pairs]
    return flat[0] - flat[1]


LOCAL_WORK: list[dict[str, Any]] = [
    {},
    {"local_epochs": 5, "local_batch_size": 2},
    {"client_learning_rate": 1e4},
    {"proximal_strength": 2.0, "local_epochs": 3},
    {"proximal_strength": 50.0, "client_momentum": 0.9, "local_epochs": 3},
    {"client_optimizer": "adam", "local_batch_size": 1},
]
TREE = TreeMechanism(
    population=4, clients_per_round=4, steps=1, restart_every=1, noise_multiplier=0.0, clip_norm=0.2, delta=0.01
)


@pytest.mark.parametrize(
    ("clip_norm", "work"), [(0.01, LOCAL_WORK[0]), *((0.1, work) for work in LOCAL_WORK), (None, LOCAL_WORK[-1])]
)
def test_one_client_moves_the_model_by_at_most_the_clip(clip_norm: float | None, work: dict[str, Any]) -> None:
    data = federated_data([9])
    plan = TREE if clip_norm is None else user_plan(population=4, clip_norm=clip_norm, delta=0.01)
    change = moved(fit(data, plan, **{"client_learning_rate": 5.0, **work}), data)
    np.testing.assert_allclose(np.linalg.norm(change), plan.clip_norm / 4, rtol=1e-4)


def test_post_processing_changes_neither_plan_nor_released_sums() -> None:
    data = federated_data([4, 5, 6])
    plan = user_plan(population=3, steps=1, clip_norm=0.1, noise_multiplier=1.0)
    plain, other = fit(data, plan), fit(data, plan, server_momentum=0.9, ema_decay=0.9)
    assert plain.executed == other.executed == plan
    # The first step of SGD at rate 1 is the noised mean; momentum and averages start with it.
    released, found = -moved(plain, data), -moved(other, data)
    np.testing.assert_allclose(found / np.abs(found).max(), released / np.abs(released).max(), atol=0.05)


def test_server_optimizers_see_the_noised_mean_alone() -> None:
    data, plan = federated_data([7, 5, 6]), user_plan(population=4, clip_norm=0.2, delta=0.01, noise_multiplier=20.0)
    # SGD at rate 1 adds the noised mean as it is. All others' first steps follow from it by hand.
    mean = moved(fit(data, plan), data)
    assert np.abs(mean).min() > 1e-4
    half = fit(data, plan, server_learning_rate=0.5, server_momentum=0.9)
    np.testing.assert_allclose(moved(half, data), 0.5 * mean, atol=1e-6)
    # Adam's first step is the rate times mean / (|mean| + epsilon / sqrt(1 - 0.999)), with epsilon 1e-7.
    adam = fit(data, plan, server_optimizer="adam", server_learning_rate=0.1)
    expected = 0.1 * mean / (np.abs(mean) + 1e-7 / np.sqrt(1e-3))
    np.testing.assert_allclose(moved(adam, data), expected, rtol=1e-3, atol=1e-6)
    assert half.executed == adam.executed == plan


def test_no_round_is_reported_whose_noise_is_not_the_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "dp_event", property(lambda _: dp_accounting.GaussianDpEvent(0.5)))
    rounds: list[RoundRecord] = []
    with pytest.raises(GuaranteeError, match=r"reports noise_multiplier=0\.5 where the plan has 1"):
        DpFedAvg(dp_settings(), user_plan(noise_multiplier=1.0), noise_seed=0, threads=None).fit(
            federated_data([4, 5]), rounds.append
        )
    assert not rounds


def test_an_exploding_client_moves_the_model_within_the_clip() -> None:
    data = federated_data([4, 4])
    data.inputs[:4] *= 1e15
    plan = user_plan(population=2, clip_norm=0.5)
    change = moved(fit(data, plan, client_learning_rate=1e6), data)
    assert np.isfinite(change).all()
    assert 0 < np.linalg.norm(change) <= 0.5 * (1 + 1e-4)


def test_a_round_without_noise_or_clipping_is_fed_avg() -> None:
    data = federated_data([4, 4, 4])
    private = fit(data, user_plan(population=3, clip_norm=1e3), local_epochs=2).record.model.weights()
    settings = fed_avg_settings(local_epochs=2, weighting="uniform")
    plain = FedAvg(settings, seed=0, threads=None).fit(data, ignore).record.model.weights()
    for mine, expected in zip(private, plain, strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-5)


def test_proximal_term_pulls_private_clients_towards_the_start() -> None:
    data, plan = federated_data([8, 8]), user_plan(population=2, clip_norm=1e3)
    free, tied = (moved(fit(data, plan, local_epochs=10, proximal_strength=mu), data) for mu in (0.0, 5.0))
    assert np.linalg.norm(tied) < 0.5 * np.linalg.norm(free)


def test_empty_cohorts_count_as_steps_and_add_noise() -> None:
    data = federated_data([3, 3])
    quiet = fit(data, user_plan(sampling_probability=NEVER, steps=2))
    assert not moved(quiet, data).any()
    assert quiet.executed == user_plan(sampling_probability=NEVER, steps=2)
    noisy = fit(data, user_plan(sampling_probability=NEVER, steps=2, noise_multiplier=1e-12))
    assert moved(noisy, data).all()


@pytest.mark.parametrize("adaptive", [None, AdaptiveClipping(target_quantile=1.0, learning_rate=1e-9, count_stddev=1)])
def test_noise_on_the_weights_has_the_planned_deviation(adaptive: AdaptiveClipping | None) -> None:
    data = federated_data([2] * 8, features=200, classes=10)
    data = replace(data, initial_weights=[np.zeros_like(value) for value in data.initial_weights])
    plan = user_plan(
        population=8, sampling_probability=0.5, steps=5, noise_multiplier=1.5, clip_norm=0.7, adaptive=adaptive
    )
    snapshots: list[np.ndarray] = [np.zeros(2010)]

    def keep(record: RoundRecord) -> None:
        snapshots.append(np.concatenate([value.ravel() for value in record.model.weights()]))

    DpFedAvg(dp_settings(client_learning_rate=SILENT), plan, noise_seed=0, threads=None).fit(data, keep)
    # With a count of deviation 1 the update has 2.27 of noise; mixed up with the 1.5 of both, the sum would tell.
    noise = np.diff(np.array(snapshots), axis=0) / (plan.update_noise_multiplier * 0.7 / 4)
    assert noise.shape == (5, 2010)
    low, high = chi2.ppf([1e-4, 1 - 1e-4], noise.size)
    assert low < (noise**2).sum() < high
    # Every round draws afresh, and independently of the others.
    assert np.abs(np.corrcoef(noise) - np.eye(5)).max() < 5 / np.sqrt(2010)


@pytest.mark.parametrize("adaptive", [None, ADAPTIVE])
def test_the_noise_seed_determines_the_noise(adaptive: AdaptiveClipping | None) -> None:
    data, plan = federated_data([2] * 4), user_plan(noise_multiplier=1.0, steps=3, adaptive=adaptive)
    runs = [fit(data, plan, noise_seed=seed, client_learning_rate=SILENT) for seed in (7, 7, 8, None, None)]
    first, same, *others = (moved(run, data) for run in runs)
    np.testing.assert_allclose(first, same, atol=1e-6, rtol=0)
    assert runs[0].facts == runs[1].facts
    for mine, theirs in itertools.combinations([first, *others], 2):
        assert (mine != theirs).all()
    if adaptive is not None:
        assert len({run.facts["final_clip_norm"] for run in runs}) == 4


def one_private_round(plan: PoissonGaussianMechanism) -> dp_accounting.DpEvent:
    data = federated_data([2, 2])
    ensure_worker(None)
    order, noise = np.random.default_rng(0), np.random.default_rng(0)
    server = Server(dp_settings(), data, noise_of(plan), order=order, noise=noise)
    server.round([0, 1])
    return server.dp_event


def test_fixed_clipping_is_the_planned_gaussian_mechanism() -> None:
    event = one_private_round(user_plan(noise_multiplier=1.3))
    assert isinstance(event, dp_accounting.GaussianDpEvent)
    assert event.noise_multiplier == pytest.approx(1.3, rel=1e-6)


def test_adaptive_clipping_shares_the_planned_noise_with_the_count() -> None:
    plan = user_plan(noise_multiplier=1.3, adaptive=ADAPTIVE)
    event = one_private_round(plan)
    assert isinstance(event, dp_accounting.ComposedDpEvent)
    update, count = (part.noise_multiplier for part in event.events)
    assert update == pytest.approx(plan.update_noise_multiplier, rel=1e-6)
    assert count == pytest.approx(2 * ADAPTIVE.count_stddev, rel=1e-6)
    assert (update**-2 + count**-2) ** -0.5 == pytest.approx(1.3, rel=1e-6)


@pytest.mark.parametrize(("clip_norm", "rises"), [(1e-3, True), (1e3, False)])
def test_adaptive_clip_follows_the_norms_of_the_deltas(clip_norm: float, rises: bool) -> None:
    quiet = replace(ADAPTIVE, count_stddev=0.0)
    plan = user_plan(population=3, steps=2, clip_norm=clip_norm, adaptive=quiet)
    result = fit(federated_data([4, 4, 4]), plan)
    # Everyone is on one side of the quantile: the norm moves by exp(0.2 * 0.5) a round.
    expected = clip_norm * np.exp(0.2 if rises else -0.2)
    assert float(result.facts["final_clip_norm"]) == pytest.approx(expected, rel=1e-4)


def test_records_count_expected_users_and_follow_the_plan(
    collect: tuple[list[RoundRecord], Callable[[RoundRecord], None]],
) -> None:
    # How many examples users hold, and how many users there are, is private: 8 * 0.5 of the public population.
    data, (records, on_round) = federated_data([2, 4, 6]), collect
    plan = user_plan(population=8, sampling_probability=0.5, steps=3, noise_multiplier=1.0)
    settings = dp_settings(rounds=99, clients_per_round=2, local_epochs=2)
    result = DpFedAvg(settings, plan, noise_seed=0, threads=None).fit(data, on_round)
    assert [(r.step, r.steps, r.examples) for r in records] == [(1, 3, 4), (2, 3, 8), (3, 3, 12)]
    assert result.executed == plan
    assert result.record is records[-1]


def test_same_noise_seed_repeats_a_whole_run() -> None:
    # Cohorts, the order of examples within a client's batches of one, and noise.
    data = federated_data([2] * 30)
    plan = user_plan(population=30, sampling_probability=0.3, steps=2, clip_norm=1e3, noise_multiplier=1e-4)
    first, same, other = (moved(fit(data, plan, noise_seed=seed, local_batch_size=1), data) for seed in (1, 1, 2))
    np.testing.assert_allclose(first, same, atol=1e-6, rtol=0)
    assert not np.allclose(first, other)


def test_cohorts_are_the_poisson_samples_that_are_accounted() -> None:
    # User i has one example, unit vector i: only this user moves row i of the kernel.
    users, q, rounds = 30, 0.1, 150
    data = federated_data([1] * users, features=users)
    data = replace(data, inputs=np.eye(users, dtype=np.float32), labels=np.zeros(users, np.int64))
    # Neither the population nor the settings' clients_per_round is the number of users present.
    plan = user_plan(population=40, sampling_probability=q, steps=rounds, clip_norm=1e-3)
    kernels = [data.initial_weights[0]]
    private = DpFedAvg(dp_settings(clients_per_round=7), plan, noise_seed=0, threads=None)
    private.fit(data, lambda record: kernels.append(record.model.weights()[0]))
    joined = (np.diff(np.array(kernels), axis=0) != 0).any(axis=2)
    assert joined.shape == (rounds, users)
    sizes = joined.sum(axis=1)
    # Binomial(30, 0.1): mean 3, variance 2.7. Five standard errors of mean and variance over the rounds.
    mean, variance = users * q, users * q * (1 - q)
    assert abs(sizes.mean() - mean) < 5 * np.sqrt(variance / rounds)
    assert abs(sizes.var(ddof=1) - variance) < 5 * variance * np.sqrt(2 / (rounds - 1))
    # Every user joins as often, 15 times with variance 13.5, and no two users join together more than by chance.
    assert np.abs(joined.sum(axis=0) - rounds * q).max() < 5 * np.sqrt(rounds * q * (1 - q))
    assert np.abs(np.corrcoef(joined.T) - np.eye(users)).max() < 6 / np.sqrt(rounds)


def test_a_plan_for_examples_is_refused() -> None:
    with pytest.raises(ValueError, match="unit is example"):
        DpFedAvg(dp_settings(), user_plan(unit=PrivacyUnit.EXAMPLE), noise_seed=None, threads=None)


def test_the_workers_memory_stays_flat_over_poisson_cohorts() -> None:
    ensure_worker(2).close()  # what earlier runs left behind would hide growth
    own: dict[int, int] = {}

    def look(record: RoundRecord) -> None:
        status = Path(f"/proc/{ensure_worker(2).process.pid}/status").read_text()
        own[record.step] = int(status.partition("RssAnon:")[2].split()[0])

    plan = user_plan(population=300, sampling_probability=0.1, steps=80)
    DpFedAvg(dp_settings(), plan, noise_seed=0, threads=2).fit(federated_data([2] * 300), look)
    # Some 15 cohort sizes come up; with an executor for each, or a heap for each thread, it grows by a fifth.
    assert own[80] < 1.1 * own[25]
