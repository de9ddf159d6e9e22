"""Accountants against published and hand-derived numbers."""

import math
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.core.errors import GuaranteeError, UserError
from pipelines.privacy.accounting import epsilon as accounting
from pipelines.privacy.accounting.cross_check import contradictions, refutations
from pipelines.privacy.accounting.epsilon import AccountantResult, accountant_results, rdp_epsilon
from pipelines.privacy.accounting.prv import prv_epsilon
from pipelines.privacy.guarantee import PrivacyGuarantee
from pipelines.privacy.mechanisms.base import AdaptiveClipping, PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism


def plan(
    q: float = 0.01, sigma: float = 1.0, steps: int = 100, delta: float = 1e-5, **more: object
) -> PoissonGaussianMechanism:
    values = {"unit": PrivacyUnit.EXAMPLE, "population": 60_000, "clip_norm": 1.0} | more
    return PoissonGaussianMechanism(
        sampling_probability=q, noise_multiplier=sigma, steps=steps, delta=delta, **values  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("mu", "delta", "expected"),
    [(0.5, 1e-5, 1.993091), (1, 1e-5, 4.377178), (2, 1e-5, 9.997256), (1, 1e-6, 4.886554)],
)
def test_one_full_step_is_the_gaussian_mechanism_in_closed_form(mu: float, delta: float, expected: float) -> None:
    # delta = Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu), solved for eps (Balle & Wang 2018, theorem 8).
    assert plan(q=1.0, sigma=1 / mu, steps=1, delta=delta).epsilon() == pytest.approx(expected, abs=2e-4)


def test_four_full_steps_equal_one_with_half_the_noise() -> None:
    # Gaussian mechanisms compose as mu^2 adds up: sqrt(4) * (1/2) = 1.
    assert plan(q=1.0, sigma=2.0, steps=4).epsilon() == pytest.approx(4.377178, abs=1e-3)


def test_one_poisson_step_matches_the_exact_value() -> None:
    assert plan(q=0.01, sigma=1.0, steps=1).epsilon() == pytest.approx(0.199450, abs=2e-4)


VECTORS = [
    (256 / 60000, 1.1, 14063, 2.5967, 2.3818, 2.3918),
    (250 / 60000, 1.3, 3600, 0.9422, 0.8530, 0.8630),
    (0.01, 4, 10000, 1.0355, 0.9470, 0.9569),
    (64 / 60000, 1.0, 9380, 0.8036, 0.4938, 0.5037),
    (4096 / 60000, 3.04, 560, 2.4577, 2.2539, 2.2641),
    (512 / 60000, 1.23, 4680, 2.5788, 2.3614, 2.3715),
]


@pytest.mark.parametrize(("q", "sigma", "steps", "rdp", "pld", "prv"), VECTORS)
def test_three_accountants_reproduce_the_reference_table(
    q: float, sigma: float, steps: int, rdp: float, pld: float, prv: float
) -> None:
    found = accountant_results(plan(q=q, sigma=sigma, steps=steps))
    assert [opinion.epsilon for opinion in found] == pytest.approx([pld, rdp, prv], abs=2e-4)
    assert contradictions(found) == []


def test_published_values_of_other_libraries_are_reproduced() -> None:
    # Opacus' own tests; tensorflow-privacy's tutorial: n 60000, batch 150, sigma 1.3, 15 epochs.
    assert rdp_epsilon(plan(q=0.04, sigma=1.5, steps=2250)) == pytest.approx(7.32911117143, rel=1e-3)
    assert prv_epsilon(sigma=1.5, q=0.04, steps=2249, delta=1e-5) == pytest.approx(6.777395712150674, abs=1e-6)
    assert rdp_epsilon(plan(q=150 / 60000, sigma=1.3, steps=15 * 400)) == pytest.approx(0.7242234026, rel=1e-3)


@pytest.mark.parametrize(("q", "sigma", "steps"), [(0.0085, 2.0, 250), (0.01, 0.5, 20)])
def test_epsilon_is_the_librarys_accountants_on_the_event(q: float, sigma: float, steps: int) -> None:
    from dp_accounting.pld import PLDAccountant

    mine = plan(q=q, sigma=sigma, steps=steps)
    accountant = PLDAccountant(value_discretization_interval=1e-4)
    accountant.compose(mine.dp_event())
    # With little noise the grid is coarser, which may only overstate epsilon, and hardly.
    assert 0 <= mine.epsilon() - accountant.get_epsilon(1e-5) + 1e-9 < 1e-5
    assert mine.quick_epsilon() == pytest.approx(mine.epsilon(), abs=1e-6)


@settings(max_examples=4, deadline=None)
@given(q=st.floats(0.005, 0.5), sigma=st.floats(0.7, 8.0), steps=st.integers(2, 300))
def test_epsilon_falls_with_noise_and_rises_with_steps_and_sampling(q: float, sigma: float, steps: int) -> None:
    here = plan(q=q, sigma=sigma, steps=steps).epsilon()
    assert plan(q=q, sigma=1.2 * sigma, steps=steps).epsilon() < here + 1e-6
    assert plan(q=q, sigma=sigma, steps=steps + 50).epsilon() > here - 1e-6
    assert plan(q=min(1.0, 1.3 * q), sigma=sigma, steps=steps).epsilon() > here - 1e-6
    assert plan(q=q, sigma=sigma, steps=steps, delta=1e-6).epsilon() > here - 1e-6


def test_a_plan_cut_short_spends_less_and_initially_nothing() -> None:
    whole = plan(steps=200)
    assert whole.executed(100).epsilon() == plan(steps=100).epsilon() < whole.epsilon()
    assert whole.executed(0).epsilon() == 0.0
    assert accountant_results(whole.executed(0))[0].epsilon == 0.0


def test_a_plan_without_noise_has_no_epsilon() -> None:
    with pytest.raises(UserError, match="noise_multiplier=0"):
        plan(sigma=0.0).epsilon()


def test_adaptive_clipping_pays_for_the_count_it_releases() -> None:
    # 100 users, count_stddev 5: z_c = 10, and z_u^-2 + 10^-2 = 1 gives z_u = 1 / sqrt(0.99) = 1.00504.
    clipping = AdaptiveClipping(target_quantile=0.5, learning_rate=0.2, count_stddev=5.0)
    adaptive = plan(sigma=1.0, adaptive=clipping)
    assert adaptive.update_noise_multiplier == pytest.approx(1.005038, abs=1e-6)
    assert adaptive.effective_noise_multiplier == pytest.approx(1.0, abs=1e-12)
    assert adaptive.epsilon() == pytest.approx(plan(sigma=1.0).epsilon(), abs=1e-9)


def said(pld: float, rdp: float, prv: float | None) -> tuple[AccountantResult, ...]:
    values = {"dp-accounting PLD": pld, "dp-accounting RDP": rdp, "Opacus PRV": prv}
    return tuple(AccountantResult(accountant=name, version="", epsilon=value) for name, value in values.items())


@pytest.mark.parametrize(
    ("answers", "refuted", "contradicted"),
    [
        ((2.0, 2.2, 2.01), 0, 0),
        ((2.0, 2.2, 2.0201), 0, 0),
        ((2.0, 2.2, 2.03), 1, 1),  # PRV says at least 2.01
        ((1.0, 2.2, 2.01), 1, 1),
        ((300.0, 330.0, 300.045), 0, 0),  # where a thousandth of delta moves epsilon by as much
        ((300.0, 330.0, 300.06), 1, 1),
        ((2.0, 1.99, 2.01), 0, 1),  # the guarantee's is the highest, or nearly
        ((2.0, 2.2, 1.97), 0, 1),
        ((2.0, 1.9, 1.9), 0, 2),
        ((2.0, 2.2, 2.3), 0, 1),  # above the upper bound: PRV itself is wrong
        ((2.0, 2.2, None), 0, 0),
    ],
)
def test_only_an_epsilon_that_could_be_too_low_is_refuted(
    answers: tuple[float, float, float | None], refuted: int, contradicted: int
) -> None:
    found = said(*answers)
    assert (len(refutations(found)), len(contradictions(found))) == (refuted, contradicted)


def test_an_epsilon_that_could_be_too_low_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = plan(steps=123)
    real = mine.epsilon()
    monkeypatch.setattr(PoissonGaussianMechanism, "epsilon", lambda plan: real - 0.03)
    with pytest.raises(GuaranteeError, match=r"lies below PRV .* it could be too low"):
        PrivacyGuarantee.of(mine, simulated=False)
    accounting.accountant_results.cache_clear()


EXTREMES = [
    (0.01, 0.2, 10, 1e-10), (0.01, 0.2, 1, 1e-10), (1e-4, 1.4, 100, 1e-10), (0.001, 0.5, 100, 1e-3),
    (0.5, 1000.0, 100, 1e-8), (0.9, 30.0, 1000, 1e-4), (1.0, 100.0, 1, 1e-3), (1.0, 2.0, 10, 1e-5),
]  # fmt: skip


@pytest.mark.parametrize(("q", "sigma", "steps", "delta"), EXTREMES)
def test_no_extreme_plan_is_refuted(q: float, sigma: float, steps: int, delta: float) -> None:
    found = accountant_results(plan(q=q, sigma=sigma, steps=steps, delta=delta, population=100))
    assert None not in [opinion.epsilon for opinion in found]
    assert refutations(found) == []


def test_an_answer_that_is_no_number_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounting, "prv_epsilon", lambda **_: math.nan)
    opinion = accounting._prv_result(plan().composition, 1e-5)
    assert (opinion.epsilon, opinion.remark) == (None, "failed: its epsilon is nan")


def test_prv_stops_at_its_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def stall(**_: float) -> float:
        while True:
            pass

    monkeypatch.setattr(accounting, "prv_epsilon", stall)
    monkeypatch.setattr(accounting, "PRV_TIME_LIMIT_S", 1)
    opinion = accounting._prv_result(plan().composition, 1e-5)
    assert opinion.epsilon is None
    assert opinion.remark == "no answer within 1 s of computing"


def test_accounting_needs_neither_torch_nor_tensorflow() -> None:
    code = (
        "import sys; from pipelines.privacy.accounting.prv import prv_epsilon; "
        "value = prv_epsilon(sigma=1.0, q=0.01, steps=10, delta=1e-5); "
        "assert 0 < value < 2, value; "
        "assert not {'torch', 'tensorflow', 'opacus'} & set(sys.modules); "
        "import opacus; assert opacus.PrivacyEngine"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_delta_enters_the_epsilon() -> None:
    assert replace(plan(), delta=1e-7).epsilon() > plan().epsilon()
    assert math.isfinite(plan(steps=5000).epsilon())


def test_prv_refuses_a_grid_that_exceeds_memory() -> None:
    plan = PoissonGaussianMechanism(
        unit=PrivacyUnit.USER, population=1000, sampling_probability=0.2, steps=60, noise_multiplier=0.001,
        clip_norm=1.0, delta=1e-5,
    )  # fmt: skip
    pld, _, prv = accountant_results(plan)
    assert pld.epsilon is not None
    assert pld.epsilon > 1e7
    assert prv.epsilon is None
    assert prv.remark.startswith("failed: its grid would have 165,281,")
