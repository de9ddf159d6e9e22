"""Both private engines let their samples be judged, and a run whose samples contradict its plan has no guarantee."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pipelines.config.pipeline_settings import DpSgdConfig
from pipelines.data.partition.division import Partition
from pipelines.engines.central.dp_sgd import DpSgd
from pipelines.engines.central.training import Hardware
from pipelines.engines.federated.dp_fed_avg import DpFedAvg
from pipelines.engines.interface import Fit, RoundRecord, TrainingData
from pipelines.privacy import sampling
from pipelines.privacy.mechanisms.base import PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism
from pipelines.privacy.sampling import SamplerRecord
from pipelines.tracking.read import RunRow
from pipelines.tracking.store import open_store
from tests.conftest import Cli, Outcome
from tests.engines.federated.conftest import dp_settings, federated_data

UNITS = 30
ENGINES = ["dp_sgd", "dp_fed_avg"]


def fixed_cohort(units: int, q: float, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.permutation(units)[: round(units * q)])


def one_hot_units() -> TrainingData:
    """Unit i holds one example, unit vector i: only this unit moves row i of a linear model's kernel."""
    data = federated_data([1] * UNITS, features=UNITS)
    inputs, labels = np.eye(UNITS, dtype=np.float32), np.zeros(UNITS, np.int64)
    return replace(data, inputs=inputs, labels=labels, partition=Partition(tuple(np.arange(UNITS)[:, None])))


def fit(engine: str, *, steps: int, q: float, on_round: Callable[[RoundRecord], None]) -> Fit:
    plan = PoissonGaussianMechanism(
        unit=PrivacyUnit.USER if engine == "dp_fed_avg" else PrivacyUnit.EXAMPLE, population=UNITS + 5,
        sampling_probability=q, steps=steps, noise_multiplier=0.0, clip_norm=1e-3, delta=1e-3,
    )  # fmt: skip
    if engine == "dp_fed_avg":
        return DpFedAvg(dp_settings(), plan, noise_seed=0, threads=2).fit(one_hot_units(), on_round)
    settings = DpSgdConfig(
        name="dp_sgd", optimizer="sgd", learning_rate=1.0, momentum=0.0, weight_decay=0.0, schedule="constant",
        batch_size=12, epochs=1, max_physical_batch=10, grad_sample="auto",
    )  # fmt: skip
    hardware = Hardware(device="cpu", threads=1)
    return DpSgd(settings, plan, noise_seed=0, hardware=hardware).fit(one_hot_units(), on_round)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_record_holds_who_really_moved_the_weights(engine: str) -> None:
    kernels, counts = [one_hot_units().initial_weights[0]], []

    def keep(record: RoundRecord) -> None:
        assert isinstance(record.sampler, SamplerRecord)
        kernels.append(record.model.weights()[0])
        counts.append(record.sampler._seen.inclusions.copy())

    done = fit(engine, steps=40, q=0.2, on_round=keep)
    moved = (np.diff(np.array(kernels), axis=0) != 0).any(axis=2)
    assert 0 < moved.sum() < moved.size
    np.testing.assert_array_equal(np.cumsum(moved, axis=0), counts)
    assert done.sampler is not None
    assert done.sampler.holds


@pytest.mark.parametrize("engine", ENGINES)
def test_another_sampler_in_the_engine_is_found_out(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "poisson_sample", fixed_cohort)
    done = fit(engine, steps=40, q=0.5, on_round=lambda _: None)
    assert done.sampler is not None
    assert not done.sampler.holds
    assert done.sampler.test == "spread of sample sizes"


def names(done: Outcome, row: RunRow) -> set[str]:
    return {item.path for item in open_store(done.uri, done.experiment).client.list_artifacts(row.run_id)}


def test_a_run_with_another_sampler_fails_without_a_guarantee(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "poisson_sample", fixed_cohort)
    failed = cli("pipeline=dp_sgd", "privacy.noise_multiplier=5", "pipeline.epochs=12", "evaluations=1")
    assert failed.code == 1
    assert failed.out == ""
    assert failed.err.startswith("error: the sampler contradicts its plan (spread of sample sizes: p = ")
    assert failed.err.count("\n") == 1
    assert (failed.row.status, failed.row.tags["privacy.sampler"]) == ("FAILED", "contradicted")
    assert failed.row.metrics["privacy/sampler_p_value"] < 1e-6
    assert failed.row.tags["mlflow.note.content"].startswith("**No guarantee:** the sampler contradicts")
    assert not {"privacy.json", "privacy_statement.md", "result.json"} & names(failed, failed.row)


def test_an_interrupted_run_is_judged_as_far_as_it_ran(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def twenty_cohorts(units: int, q: float, rng: np.random.Generator) -> np.ndarray:
        drawn.append(units)
        if len(drawn) > 20:
            raise KeyboardInterrupt
        return fixed_cohort(units, q, rng)

    monkeypatch.setattr(sampling, "poisson_sample", twenty_cohorts)
    stopped = cli("pipeline=dp_sgd", "privacy.noise_multiplier=5", "pipeline.epochs=99", "evaluations=1")
    assert stopped.code == 130
    assert (stopped.row.status, stopped.row.tags["privacy.sampler"]) == ("KILLED", "contradicted")
    assert "privacy.json" not in names(stopped, stopped.row)
