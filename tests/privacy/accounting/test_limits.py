"""A plan at the end of a range is prepared with all its numbers, or refused in one line before anything is logged."""

import signal
import time
from collections.abc import Callable
from dataclasses import replace
from math import isfinite
from typing import Any

import pytest

from pipelines.core.errors import UserError
from pipelines.privacy.accounting import limits as judgement
from pipelines.privacy.accounting.epsilon import accountant_results
from pipelines.privacy.accounting.limits import accountable, judge
from pipelines.privacy.accounting.time_limit import time_limit
from pipelines.privacy.guarantee import PrivacyGuarantee
from pipelines.privacy.mechanisms.base import PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism
from pipelines.privacy.statement import statement
from pipelines.runs.prepare import judged_plan
from tests.privacy.conftest import dp_fed_avg, dp_sgd, privacy, privacy_of

UNITS = 1437
CENTRAL = dp_sgd(batch_size=64, epochs=2)
FEDERATED = dp_fed_avg(rounds=10, clients_per_round=100)
NOISE = [{"noise_multiplier": sigma} for sigma in (1e-12, 1e-6, 1e-3, 1.0, 1e3, 1e6, 1e12, 1e-200, 1e300)]
TARGETS = [{"epsilon": epsilon} for epsilon in (1e-9, 1e-3, 1.0, 1e3, 1e9)]
SETTINGS: list[tuple[Any, dict[str, Any]]] = [
    *((CENTRAL, given) for given in NOISE + TARGETS),
    *((FEDERATED, given) for given in NOISE[:3] + NOISE[5:7]),
    *((FEDERATED, given | {"name": "tree"}) for given in NOISE + TARGETS),
    *((CENTRAL, given | {"name": "adaptive", "count_stddev": 1e12}) for given in NOISE),
    *((CENTRAL, given | {"name": "adaptive", "count_stddev": 1e-12}) for given in NOISE),
    *((CENTRAL, {"noise_multiplier": 1.0, "clip_norm": clip}) for clip in (1e-300, 1e-12, 1e12, 1e300)),
    *((CENTRAL, {"noise_multiplier": 1.0, "delta": delta}) for delta in (1e-9, 0.99 / UNITS, 0.5)),
    *((dp_sgd(batch_size=size, epochs=1e-3), {"noise_multiplier": 1.0}) for size in (1, UNITS, UNITS + 1)),
    (dp_sgd(batch_size=UNITS, epochs=1e300), {"noise_multiplier": 1.0}),
    (dp_fed_avg(rounds=10**12, clients_per_round=100), {"noise_multiplier": 1.0, "name": "tree"}),
    (CENTRAL, {"noise_multiplier": 1.0, "population": 10**12}),
    *((CENTRAL, {"noise_multiplier": 1.0, "name": "adaptive", "target_quantile": quantile}) for quantile in (0.0, 1.0)),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("pipeline", "given"), SETTINGS)
def test_every_plan_is_accounted_for_or_refused_in_one_line(pipeline: Any, given: dict[str, Any]) -> None:
    settings = privacy_of(**({"epsilon": None, "noise_multiplier": None, "delta": 1e-5} | given))
    try:
        plan = judged_plan(pipeline, settings, UNITS)
    except UserError as error:
        line = str(error)
    else:
        line = ""
    assert "\n" not in line
    if line:
        assert "privacy." in line or "pipeline." in line
        return
    answers = [opinion.epsilon for opinion in accountant_results(plan)]
    assert answers[0] is not None
    assert all(answer is None or (isfinite(answer) and answer >= 0) for answer in answers)
    assert statement(PrivacyGuarantee.of(plan, simulated=False))


def fails_with(error: type[Exception]) -> Callable[[object], None]:
    def fail(*_: object) -> None:
        raise error("out of bounds\nindeed")

    return fail


@pytest.mark.parametrize("error", [ValueError, OverflowError, MemoryError, ZeroDivisionError, TimeoutError])
def test_what_an_accountant_raises_becomes_one_line(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judgement, "accountant_results", fails_with(error))
    with pytest.raises(UserError, match=r"privacy.noise_multiplier=1 .*out of bounds indeed.*; take") as refusal:
        judged_plan(CENTRAL, privacy(epsilon=None, noise_multiplier=1.0), UNITS)
    assert "\n" not in str(refusal.value)


def compute_for_ever() -> None:
    with accountable("a subject", "stop"):
        while True:
            pass


def test_an_accountant_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judgement, "TIME_LIMIT_S", 0.05)
    with pytest.raises(UserError, match=r"a subject is beyond .*no answer within"):
        compute_for_ever()
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)


def compute(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def nested_limits() -> None:
    with time_limit(0.5):
        with pytest.raises(TimeoutError, match=r"within 0\.05 s"), time_limit(0.05):
            compute(60)
        compute(0.1)
        assert 0 < signal.getitimer(signal.ITIMER_PROF)[0] < 0.45
        with time_limit(100):
            compute(60)


def test_an_inner_time_limit_leaves_the_rest_to_the_outer() -> None:
    with pytest.raises(TimeoutError, match=r"within 0\.5 s"):
        nested_limits()


def test_an_accountant_that_asks_for_terabytes_is_stopped() -> None:
    import numpy as np

    with pytest.raises(UserError, match="a subject is beyond"), accountable("a subject", "stop"):
        np.ones(2**38)


@pytest.mark.parametrize(("clip_norm", "sigma"), [(1e-40, 1.0), (1e40, 1.0), (1e20, 1e12), (1e-20, 1e-12)])
def test_noise_that_32_bit_numbers_cannot_hold_is_refused(clip_norm: float, sigma: float) -> None:
    plan = PoissonGaussianMechanism(
        unit=PrivacyUnit.EXAMPLE, population=100, sampling_probability=0.1, steps=1, noise_multiplier=sigma,
        clip_norm=1.0, delta=1e-3,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"privacy.clip_norm=1e.*32-bit"):
        judge(replace(plan, clip_norm=clip_norm))
