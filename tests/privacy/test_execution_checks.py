"""A run whose training departed from its plan must not get a guarantee."""

from dataclasses import replace

import dp_accounting
import pytest

from pipelines.core.errors import GuaranteeError
from pipelines.privacy.execution_checks import require_event, require_executed
from pipelines.privacy.mechanisms.base import AdaptiveClipping, PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism

PLAN = PoissonGaussianMechanism(
    unit=PrivacyUnit.USER, population=100, sampling_probability=0.1, steps=20, noise_multiplier=1.5, clip_norm=2.0,
    delta=1e-4,
)  # fmt: skip
ADAPTIVE = replace(PLAN, adaptive=AdaptiveClipping(target_quantile=0.5, learning_rate=0.2, count_stddev=2.0))


def test_a_run_of_its_plan_passes() -> None:
    require_executed(PLAN, PLAN, 20)
    require_executed(PLAN, replace(PLAN, steps=7), 7)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"steps": 19}, "steps=19 instead of 20"),
        ({"delta": 1e-3}, "delta=0.001 instead of 0.0001"),
        ({"noise_multiplier": 3.0}, "noise_multiplier=3.0 instead of 1.5"),
        ({"population": 1000, "clip_norm": 1.0}, "population=1000 instead of 100; clip_norm=1.0 instead of 2.0"),
    ],
)
def test_a_changed_plan_is_refused_with_what_changed(changes: dict[str, float], reason: str) -> None:
    with pytest.raises(GuaranteeError, match=reason):
        require_executed(PLAN, replace(PLAN, **changes), 20)  # type: ignore[arg-type]


def test_a_private_run_must_say_what_it_ran() -> None:
    with pytest.raises(GuaranteeError, match="does not say what it ran"):
        require_executed(PLAN, None, 20)


def gaussian(sigma: float) -> dp_accounting.DpEvent:
    return dp_accounting.GaussianDpEvent(sigma)


def test_the_librarys_event_must_have_the_plans_noise() -> None:
    require_event(PLAN, gaussian(1.5))
    with pytest.raises(GuaranteeError, match=r"noise_multiplier=0\.75 where the plan has 1\.5"):
        require_event(PLAN, gaussian(0.75))
    with pytest.raises(GuaranteeError, match="noise_multiplier=0 "):
        require_event(PLAN, gaussian(0))
    with pytest.raises(GuaranteeError, match="no Gaussian"):
        require_event(PLAN, dp_accounting.LaplaceDpEvent(1.5))


def test_under_adaptive_clipping_update_and_count_share_the_noise() -> None:
    # 1.5^-2 = z^-2 + (2 * 2)^-2, worked out: z^-2 = 4/9 - 1/16 = 55/144.
    update = (144 / 55) ** 0.5
    require_event(ADAPTIVE, dp_accounting.ComposedDpEvent([gaussian(update), gaussian(4.0)]))
    with pytest.raises(GuaranteeError, match=r"1\.6\d* where the plan has 1\.5"):
        require_event(ADAPTIVE, gaussian(update))
