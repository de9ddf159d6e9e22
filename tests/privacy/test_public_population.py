"""One unit more or less changes nothing that the mechanism is made of: rate, steps, expected batch size and noise are
public."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.config.pipeline_settings import DpSgdConfig
from pipelines.config.schema import Config, parse
from pipelines.core.errors import GuaranteeError
from pipelines.engines.central.gradients import Mode, private_gradients
from pipelines.engines.central.training import Hardware, TrainState
from pipelines.engines.federated.dp_fed_avg import DpFedAvg, noise_of
from pipelines.engines.federated.learning_process import Server
from pipelines.engines.federated.runtime import ensure_worker
from pipelines.engines.interface import TrainingData
from pipelines.privacy.mechanisms import planning
from pipelines.privacy.mechanisms.base import PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism
from pipelines.runs.prepare import prepare
from tests.engines.federated.conftest import dp_settings, federated_data, ignore

POPULATION = 40
PRESENT = (POPULATION - 1, POPULATION, POPULATION + 1)
COMMON: dict[str, Any] = {
    "dataset": {"name": "digits"},
    "model": {"name": "linear"},
    "partition": {"name": "iid", "clients": POPULATION},
    "tracking": {"uri": None, "experiment": None, "log_model": False},
    "seed": 0, "device": "cpu", "threads": 1, "evaluations": 1, "debug": False,
}  # fmt: skip
CENTRAL: dict[str, Any] = {
    "name": "dp_sgd", "optimizer": "sgd", "learning_rate": 1.0, "momentum": 0.0, "weight_decay": 0.0,
    "schedule": "constant", "batch_size": 8, "epochs": 3.0, "max_physical_batch": 16, "grad_sample": "auto",
}  # fmt: skip
PRIVACY: dict[str, Any] = {
    "name": "fixed", "epsilon": 3.0, "noise_multiplier": None, "delta": 1e-3, "clip_norm": 0.5,
    "population": POPULATION, "noise_seed": None,
}  # fmt: skip
PLAN = PoissonGaussianMechanism(
    unit=PrivacyUnit.EXAMPLE, population=POPULATION, sampling_probability=0.2, steps=3, noise_multiplier=1.3,
    clip_norm=0.5, delta=1e-3,
)  # fmt: skip


def central_config(units: int, folder: Path) -> Config:
    """Of an archive with so many examples."""
    path, inputs = folder / f"{units}.npz", np.random.default_rng(0).random((POPULATION + 5, 4))
    labels = np.arange(len(inputs)) % 3
    split = {"x_train": inputs[:units], "y_train": labels[:units], "x_test": inputs[-4:], "y_test": labels[-4:]}
    np.savez(path, **split, classes=3)
    return parse(COMMON | {"dataset": {"name": "npz", "file": str(path)}, "pipeline": CENTRAL, "privacy": PRIVACY})


def user_config(units: int, folder: Path) -> Config:
    partition = {"name": "iid", "clients": units}
    pipeline = {key: value for key, value in CENTRAL.items() if key != "grad_sample"} | {"name": "dp_sgd_users"}
    return parse(COMMON | {"partition": partition, "pipeline": pipeline, "privacy": PRIVACY})


def federated_config(units: int, folder: Path | None = None, **privacy: Any) -> Config:
    pipeline, partition = dp_settings(clients_per_round=8, rounds=5).model_dump(), {"name": "iid", "clients": units}
    return parse(COMMON | {"partition": partition, "pipeline": pipeline, "privacy": PRIVACY | privacy})


ADAPTIVE = partial(federated_config, name="adaptive", count_stddev=2.0)
TREE = partial(federated_config, name="tree", restart_every=5)


@pytest.mark.parametrize("config", [central_config, user_config, federated_config, ADAPTIVE, TREE])
def test_a_job_has_the_same_plan_for_every_population(config: Callable[[int, Path], Config], tmp_path: Path) -> None:
    jobs = [prepare(config(units, tmp_path), threads=1) for units in PRESENT]
    present = [len(job.dataset.train) if job.partition is None else len(job.partition) for job in jobs]
    assert present == list(PRESENT)
    (plan,) = {job.plan for job in jobs}
    assert plan is not None
    assert plan.expected_batch_size == 8
    assert plan.noise_multiplier > 0
    assert plan.steps == (5 if jobs[0].config.pipeline.name == "dp_fed_avg" else 15)
    if isinstance(plan, PoissonGaussianMechanism):  # 8 of 40 are expected; calibrated to epsilon 3 for that rate alone
        assert plan.sampling_probability == 0.2
    else:
        assert plan.restart_every == 5


@pytest.mark.parametrize("mechanism", ["fixed", "tree"])
def test_a_job_whose_plan_follows_the_private_number_is_refused(
    mechanism: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = federated_config(POPULATION, name=mechanism)
    real = planning.plan_for
    follow = {"population": None}
    monkeypatch.setattr(
        planning, "plan_for", lambda *given: real(given[0], given[1].model_copy(update=follow), given[2])
    )
    with pytest.raises(GuaranteeError, match="follows the private number of units"):
        prepare(config, threads=1)
    # Where no population is stated, the number of units is public: the plan may follow it, and the statement says so.
    public = config.model_copy(update={"privacy": config.privacy.model_copy(update=follow)})
    assert prepare(public, threads=1).plan is not None


@pytest.mark.parametrize("mode", ["book_keeping", "hooks", "ghost"])
def test_opacus_optimizer_is_built_from_the_plan_alone(mode: Mode) -> None:
    settings = DpSgdConfig.model_validate(CENTRAL)
    built = set()
    for units in PRESENT:
        data = federated_data([1] * units)
        state = TrainState.of(data, Hardware(device="cpu", threads=1), contiguous=True)
        gradients = private_gradients(mode, state, data.spec, settings, PLAN, np.random.default_rng(0))
        optimizer = gradients.optimizer
        built.add((optimizer.expected_batch_size, optimizer.noise_multiplier, optimizer.max_grad_norm))
        gradients.close()
    assert built == {(8.0, 1.3, 0.5)}


@pytest.mark.parametrize("engine", ["fast", "stock"])
def test_tffs_aggregation_is_built_from_the_plan_alone(engine: str) -> None:
    plan = replace(PLAN, unit=PrivacyUnit.USER)
    built = set()
    ensure_worker(2)
    for units in PRESENT:
        streams = {name: np.random.default_rng(0) for name in ("order", "noise")}
        server = Server(dp_settings(engine=engine), federated_data([1] * units), noise_of(plan), **streams)  # type: ignore[arg-type]
        query = server._state.aggregator.query_state
        total = query.numerator_state
        built.add(tuple(round(float(value), 6) for value in (query.denominator, total.stddev, total.l2_norm_clip)))
    # The noise on the sum has deviation 1.3 * 0.5.
    assert built == {(8.0, 0.65, 0.5)}


def test_noise_in_a_round_does_not_depend_on_its_cohort() -> None:
    # The clients' rate is so small that nothing but noise reaches the weights.
    plan = replace(PLAN, unit=PrivacyUnit.USER, steps=1)
    moved = []
    for units in PRESENT:
        data: TrainingData = federated_data([1] * units)
        data = replace(data, initial_weights=[np.zeros_like(value) for value in data.initial_weights])
        settings = dp_settings(client_learning_rate=1e-20)
        moved.append(DpFedAvg(settings, plan, noise_seed=3, threads=2).fit(data, ignore).record.model.weights())
    assert np.abs(moved[0][0]).max() > 0
    for weights in moved[1:]:
        for mine, first in zip(weights, moved[0], strict=True):
            np.testing.assert_allclose(mine, first, atol=1e-12, rtol=0)
