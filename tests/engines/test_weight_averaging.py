"""Every pipeline releases the average, and trains and accounts as without it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipelines.config.pipeline_settings import DpFedAvgConfig, DpSgdConfig, DpSgdUsersConfig, FedAvgConfig, SgdConfig
from pipelines.engines.central.dp_sgd import DpSgd
from pipelines.engines.central.sgd import Sgd
from pipelines.engines.federated.dp_fed_avg import DpFedAvg
from pipelines.engines.federated.fed_avg import FedAvg
from pipelines.engines.interface import Pipeline
from pipelines.model.spec import Weights
from pipelines.privacy.mechanisms.base import PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism

from .test_parity import CPU, FEDERATED, close, make_data

STEPS = 5
CENTRAL = {
    "optimizer": "sgd", "learning_rate": 0.5, "momentum": 0.5, "weight_decay": 0.0, "schedule": "constant",
    "batch_size": 4, "epochs": 1,
}  # fmt: skip
PRIVATE = CENTRAL | {"name": "dp_sgd", "max_physical_batch": 3, "grad_sample": "auto"}
Build = Callable[[float], Pipeline]


def plan(unit: PrivacyUnit) -> PoissonGaussianMechanism:
    return PoissonGaussianMechanism(
        unit=unit, population=20, sampling_probability=0.4, steps=STEPS, noise_multiplier=1.0, clip_norm=0.2, delta=1e-3
    )


def sgd(decay: float) -> Pipeline:
    return Sgd(SgdConfig.model_validate(CENTRAL | {"name": "sgd", "ema_decay": decay}), seed=0, hardware=CPU)


def dp_sgd(decay: float, **settings: Any) -> Pipeline:
    chosen = DpSgdConfig.model_validate(PRIVATE | settings | {"ema_decay": decay})
    return DpSgd(chosen, plan(PrivacyUnit.EXAMPLE), noise_seed=1, hardware=CPU)


def hooks(decay: float) -> Pipeline:
    return dp_sgd(decay, grad_sample="hooks")


def users(decay: float) -> Pipeline:
    chosen = DpSgdUsersConfig.model_validate(
        CENTRAL | {"name": "dp_sgd_users", "max_physical_batch": 3, "ema_decay": decay}
    )
    return DpSgd(chosen, plan(PrivacyUnit.USER), noise_seed=1, hardware=CPU)


def fed_avg(decay: float) -> Pipeline:
    settings = FEDERATED | {"name": "fed_avg", "weighting": "examples", "rounds": STEPS, "clients_per_round": 3}
    return FedAvg(FedAvgConfig.model_validate(settings | {"ema_decay": decay}), seed=0, threads=1)


def dp_fed_avg(decay: float) -> Pipeline:
    settings = DpFedAvgConfig.model_validate(
        FEDERATED | {"name": "dp_fed_avg", "clients_per_round": 8, "ema_decay": decay}
    )
    return DpFedAvg(settings, plan(PrivacyUnit.USER), noise_seed=1, threads=1)


@pytest.mark.parametrize("build", [sgd, dp_sgd, hooks, users, fed_avg, dp_fed_avg])
def test_the_released_weights_are_the_average_of_those_gone_through(build: Build) -> None:
    data = make_data("cnn", (8, 8, 1), [1] * 20)

    def run(decay: float) -> tuple[list[Weights], Any]:
        path: list[Weights] = []
        fit = build(decay).fit(data, lambda record: path.append(record.model.weights()))
        assert close(fit.record.model.weights(), path[-1])
        return path, fit

    path, plain = run(0.0)
    averaged, fit = run(0.5)
    assert len(averaged) == len(path) == STEPS
    for step, released in enumerate(averaged, 1):
        shares = 0.5 ** np.arange(step)[::-1]
        shares /= shares.sum()
        expected = [
            sum(s * w for s, w in zip(shares, weights, strict=True)) for weights in zip(*path[:step], strict=True)
        ]
        assert close(released, expected)
    assert not close(averaged[-1], path[-1])
    # Nothing that the guarantee is computed from has changed.
    assert fit.executed == plain.executed
    assert fit.sampler == plain.sampler
