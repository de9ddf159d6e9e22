"""Bounds against hand-checked numbers, against the definition, and by simulation."""

import math

import numpy as np
import pytest
from scipy import integrate, optimize, stats
from scipy.special import ndtr

from pipelines.auditing.canary_trial import count_correct
from pipelines.auditing.lower_bounds import (
    chi_square_interval,
    clopper_pearson_upper,
    gaussian_mu_lower_bound,
    one_run_lower_bound,
    one_run_p_value,
)
from pipelines.privacy.accounting.gaussian_pair import gaussian_pair_epsilon, hockey_stick
from pipelines.privacy.mechanisms.base import epsilon_at_noise
from tests.auditing.conftest import plan_of

PUBLISHED = {"population": 60_000, "sampling_probability": 256 / 60_000, "steps": 14_063, "noise_multiplier": 1.1}


def test_clopper_pearson_is_where_so_few_errors_become_unlikely() -> None:
    # No error in n: 1 - (1 - p)^n = confidence; 20 errors in 100: P[Bin(100, p) <= 20] = 1 - confidence.
    assert clopper_pearson_upper(0, 100, 0.975) == pytest.approx(1 - 0.025**0.01, rel=1e-9)
    assert stats.binom.cdf(20, 100, clopper_pearson_upper(20, 100, 0.975)) == pytest.approx(0.025, rel=1e-6)
    assert clopper_pearson_upper(100, 100, 0.975) == 1


@pytest.mark.parametrize(("arm", "expected"), [(1000, 1.73), (5000, 2.07), (20_000, 2.23)])
def test_mechanism_bound_is_as_tight_as_an_ideal_attack_allows(arm: int, expected: float) -> None:
    # True epsilon 2.38; the numbers of the design notes, at the expected number of errors of a threshold at 1/2.
    plan = plan_of("dp_sgd", **PUBLISHED)
    errors = round(arm * ndtr(-0.5 / plan.noise_multiplier))
    mu = gaussian_mu_lower_bound(
        false_positives=errors, negatives=arm, false_negatives=errors, positives=arm, confidence=0.95
    )
    assert plan.lower_bound(mu) == pytest.approx(expected, abs=0.03)
    assert plan.epsilon() == pytest.approx(2.3818, abs=1e-3)


def test_mechanism_bound_keeps_its_confidence() -> None:
    # mu = 1 exactly; 2,000 audits of 400 observations an arm. Both error rates are bounded at 97.5 %.
    rng = np.random.default_rng(3)
    errors = rng.binomial(400, ndtr(-0.5), size=(2000, 2))
    bounds = [
        gaussian_mu_lower_bound(false_positives=a, negatives=400, false_negatives=b, positives=400, confidence=0.95)
        for a, b in errors.tolist()
    ]
    assert 0.6 < np.median(bounds) < 1
    assert np.mean(np.array(bounds) > 1) <= 0.05


def test_what_tells_nothing_apart_bounds_nothing() -> None:
    plan = plan_of("dp_sgd")
    mu = gaussian_mu_lower_bound(false_positives=50, negatives=100, false_negatives=50, positives=100, confidence=0.95)
    assert mu < 0
    assert plan.lower_bound(mu) == 0
    assert plan.lower_bound(1e-9) == 0
    assert epsilon_at_noise(plan, math.inf) == 0


def one_run_by_definition(epsilon: float, canaries: int, guesses: int, correct: int, delta: float) -> float:
    law = stats.binom(guesses, 1 / (1 + math.exp(-epsilon)))
    beta = law.sf(correct - 1)
    alpha = max((law.cdf(correct - 1) - law.cdf(correct - i - 1)) / i for i in range(1, correct + 1))
    return float(min(1, beta + 2 * canaries * delta * alpha))


@pytest.mark.parametrize(
    ("epsilon", "guesses", "correct"), [(0.0, 10, 9), (1.0, 100, 80), (3.0, 200, 200), (0.5, 7, 1)]
)
def test_one_run_p_value_is_the_formula(epsilon: float, guesses: int, correct: int) -> None:
    ours = one_run_p_value(epsilon, canaries=500, guesses=guesses, correct=correct, delta=1e-4)
    assert ours == pytest.approx(one_run_by_definition(epsilon, 500, guesses, correct, 1e-4), rel=1e-9)


def test_one_run_without_delta_is_a_binomial_test() -> None:
    # All 100 guesses right: q^100 = 0.05, so q = 0.05^(1/100) = 0.970487 and epsilon = log(q / (1 - q)) = 3.493.
    bound = one_run_lower_bound(canaries=100, guesses=100, correct=100, delta=0.0, confidence=0.95)
    assert bound == pytest.approx(math.log(0.05**0.01 / (1 - 0.05**0.01)), abs=1e-5)
    assert one_run_lower_bound(canaries=100, guesses=100, correct=50, delta=0.0, confidence=0.95) == 0
    assert one_run_lower_bound(canaries=100, guesses=100, correct=0, delta=0.0, confidence=0.95) == 0


def test_one_run_bound_rises_with_guesses_and_falls_with_delta() -> None:
    bounds = [
        [
            one_run_lower_bound(canaries=1000, guesses=100, correct=v, delta=d, confidence=0.95)
            for v in range(60, 101, 5)
        ]
        for d in (0.0, 1e-5, 1e-4)
    ]
    assert (np.diff(bounds, axis=1) >= 0).all()
    assert (np.diff(bounds, axis=0) <= 0).all()


@pytest.mark.parametrize(
    ("true", "canaries", "expected"), [(2, 5000, 0.7), (4, 1000, 0.8), (4, 5000, 1.9), (8, 1000, 1.9), (8, 5000, 3.0)]
)
def test_one_run_is_as_tight_as_a_white_box_attack(true: float, canaries: int, expected: float) -> None:
    # One Gaussian score a canary, and the number of guesses that suits it best; never less than the design notes have.
    mu = optimize.brentq(lambda mu: gaussian_pair_epsilon((0, 1), (mu, 1), 1e-5) - true, 0.1, 3)
    rng = np.random.default_rng(0)
    found = []
    for _ in range(20):
        included = rng.random(canaries) < 0.5
        scores = included * mu + rng.standard_normal(canaries)
        found.append([_bound(scores, included, guesses) for guesses in (50, 100, 200, 400, 800)])
    assert np.mean(found, axis=0).max() > expected - 0.1
    assert np.max(found) <= true


def _bound(scores: np.ndarray, included: np.ndarray, guesses: int) -> float:
    correct = count_correct(scores, included, guesses)
    return one_run_lower_bound(canaries=len(scores), guesses=guesses, correct=correct, delta=1e-5, confidence=0.95)


def test_one_run_bound_on_pure_privacy_keeps_its_confidence() -> None:
    # Randomised response with epsilon 1: every guess is right with probability e / (1 + e).
    rng = np.random.default_rng(1)
    correct = rng.binomial(200, math.e / (1 + math.e), 2000)
    bounds = {
        v: one_run_lower_bound(canaries=200, guesses=200, correct=v, delta=0, confidence=0.95) for v in set(correct)
    }
    share = np.mean([bounds[v] > 1 for v in correct])
    assert 0.02 < share <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((1.0, 1.0), (0.0, 1.0)),
        ((-1.0, 1.0), (0.0, 1.0)),
        ((0.5, 2.0), (0.0, 1.0)),
        ((3.0, 0.5), (1.0, 2.0)),
        ((0.0, 0.5), (0.0, 1.0)),
    ],
)
@pytest.mark.parametrize("epsilon", [0.0, 0.7, 2.0])
def test_hockey_stick_is_its_integral(epsilon: float, first: tuple[float, float], second: tuple[float, float]) -> None:
    def gap(x: float) -> float:
        return max(0.0, stats.norm.pdf(x, *first) - math.exp(epsilon) * stats.norm.pdf(x, *second))

    expected, _ = integrate.quad(gap, -30, 30, limit=2000, points=[-3, 0, 3])
    assert hockey_stick(epsilon, first, second) == pytest.approx(expected, abs=1e-7)


def test_equal_gaussians_at_distance_one_have_the_known_epsilon() -> None:
    assert gaussian_pair_epsilon((0, 1), (1, 1), 1e-5) == pytest.approx(4.377178, abs=1e-4)
    assert gaussian_pair_epsilon((6, 2), (4, 2), 1e-5) == pytest.approx(4.377178, abs=1e-4)
    assert gaussian_pair_epsilon((0, 1), (0, 1), 1e-5) == 0
    assert gaussian_pair_epsilon((0, 1), (0, 2), 1e-5) > 5


@pytest.mark.parametrize("degrees", [1, 30, 4_000_001])
def test_chi_square_interval_is_scipys(degrees: int) -> None:
    expected = stats.chi2.ppf([5e-7, 1 - 5e-7], degrees) / degrees
    assert chi_square_interval(degrees, 1 - 1e-6) == pytest.approx(expected, rel=1e-6)
