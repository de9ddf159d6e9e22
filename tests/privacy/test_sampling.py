"""The sampler, and whether its record tells a Poisson sampler from the others."""

import itertools
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from scipy.stats import binom

from pipelines.core.errors import UserError
from pipelines.privacy.sampling import LEVEL, PoissonSampler, SamplerRecord, SamplerVerdict
from pipelines.privacy.sampling_law import binomial_p, dispersion_p, extreme_unit_p, overlap_p

Steps = list[np.ndarray]
REALISTIC = [(1437, 0.5, 100), (1000, 0.05, 100), (359, 0.5, 25)]


def judged(units: int, q: float, samples: Iterable[np.ndarray]) -> SamplerVerdict:
    record = SamplerRecord(units, q)
    for sample in samples:
        record.observe(sample)
    return record.verdict()


def poisson(n: int, q: float, steps: int, rng: np.random.Generator) -> Steps:
    sampler = PoissonSampler(n, q, rng)
    return [sampler.draw() for _ in range(steps)]


def fixed_cohorts(n: int, q: float, steps: int, rng: np.random.Generator) -> Steps:
    return [rng.choice(n, size=round(n * q), replace=False) for _ in range(steps)]


def shuffled_batches(n: int, q: float, steps: int, rng: np.random.Generator) -> Steps:
    size = round(n * q)
    epochs = np.concatenate([rng.permutation(n)[: n // size * size] for _ in range(steps)])
    return list(epochs.reshape(-1, size)[:steps])


def random_partition_each_epoch(n: int, q: float, steps: int, rng: np.random.Generator) -> Steps:
    # Sizes vary as those of Poisson samples do, but everybody comes once an epoch.
    parts = round(1 / q)
    epochs = [rng.integers(0, parts, n) for _ in range(steps // parts + 1)]
    return [np.flatnonzero(epoch == part) for epoch in epochs for part in range(parts)][:steps]


def one_sample_for_all_steps(n: int, q: float, steps: int, rng: np.random.Generator) -> Steps:
    return poisson(n, q, 1, rng) * steps


def every_sample_twice(n: int, q: float, steps: int, rng: np.random.Generator) -> Steps:
    return [sample for sample in poisson(n, q, (steps + 1) // 2, rng) for _ in range(2)][:steps]


def higher_rate(n: int, q: float, steps: int, rng: np.random.Generator) -> Steps:
    return poisson(n, 1.25 * q, steps, rng)


def lower_rate(n: int, q: float, steps: int, rng: np.random.Generator) -> Steps:
    return poisson(n, 0.75 * q, steps, rng)


def one_rate_a_unit(n: int, q: float, steps: int, rng: np.random.Generator) -> Steps:
    rates = q * rng.uniform(0, 2, n)
    return [np.flatnonzero(rng.random(n) < rates) for _ in range(steps)]


def one_unit_in_every_sample(n: int, q: float, steps: int, rng: np.random.Generator) -> Steps:
    return [np.union1d(sample, [3]) for sample in poisson(n, q, steps, rng)]


@pytest.mark.parametrize("kind", [
    fixed_cohorts, shuffled_batches, random_partition_each_epoch, one_sample_for_all_steps, every_sample_twice,
    higher_rate, lower_rate, one_rate_a_unit,
])  # fmt: skip
@pytest.mark.parametrize(("n", "q", "steps"), REALISTIC)
def test_another_sampler_is_caught(kind: Callable[..., Steps], n: int, q: float, steps: int) -> None:
    for seed in range(5):
        verdict = judged(n, q, kind(n, q, steps, np.random.default_rng(seed)))
        assert not verdict.holds, verdict


def test_a_unit_always_sampled_is_caught_in_a_hundred_steps() -> None:
    for n, q, steps in REALISTIC[:2]:
        verdict = judged(n, q, one_unit_in_every_sample(n, q, steps, np.random.default_rng(0)))
        assert not verdict.holds
        assert verdict.test == "most extreme unit"


@pytest.mark.parametrize(
    ("n", "q", "steps"),
    [*REALISTIC, (10, 0.005, 1), (10, 0.005, 100), (10, 0.5, 2), (10, 0.9, 25), (200, 0.005, 50), (1000, 0.9, 2)],
)
def test_poisson_sampling_is_hardly_ever_suspected(n: int, q: float, steps: int) -> None:
    rng, draws = np.random.default_rng(1), 60
    values = np.array([judged(n, q, poisson(n, q, steps, rng)).p_value for _ in range(draws)])
    # At most 60 * 0.1 = 6 expected; five standard deviations of sqrt(60 * 0.1 * 0.9) = 2.3 more.
    assert (values < 0.1).sum() <= 6 + 5 * 2.3
    assert (values < 0.01).sum() <= 4  # 0.6 expected: 5 or more have probability 4e-4
    assert (values < 1e-4).sum() == 0  # 0.006 expected


@pytest.mark.parametrize(("n", "steps"), [(1, 3), (2, 2), (3, 2), (2, 3), (4, 1), (1, 6)])
@pytest.mark.parametrize("q", [0.005, 0.3, 0.9])
def test_no_p_value_is_smaller_than_its_probability(n: int, steps: int, q: float) -> None:
    # Every outcome there is, with its exact probability, for each test by itself.
    outcomes: dict[str, list[tuple[float, float]]] = {}
    for inclusions in itertools.product([False, True], repeat=n * steps):
        table = np.array(inclusions).reshape(steps, n)
        record = SamplerRecord(n, q)
        for row in table:
            record.observe(np.flatnonzero(row))
        probability = q ** table.sum() * (1 - q) ** (table.size - table.sum())
        for test, value in record.p_values().items():
            outcomes.setdefault(test, []).append((value, probability))
    assert len(outcomes) == (5 if steps > 1 else 4)
    for test, pairs in outcomes.items():
        running = 0.0
        for value, group in itertools.groupby(sorted(pairs), key=lambda pair: pair[0]):
            running += sum(probability for _, probability in group)
            assert running <= value * (1 + 1e-6) + 1e-12, (test, value)


def test_p_values_by_hand() -> None:
    # No heads in ten fair throws: 2 * 2^-10. One unit in both of two steps: the bound is sharp at the end, 2 q^2.
    assert binomial_p(0, 10, 0.5) == pytest.approx(2 / 1024)
    assert binomial_p(5, 10, 0.5) == 1.0
    assert overlap_p(1, units=1, steps=2, q=0.1) == pytest.approx(0.02, rel=1e-3)
    # Nobody of three units twice in a row over two steps: 2 (1 - q^2)^3, which is no evidence at q = 0.1.
    assert overlap_p(0, units=3, steps=2, q=0.9) == pytest.approx(2 * 0.19**3, rel=1e-3)
    assert overlap_p(0, units=3, steps=2, q=0.1) == 1.0
    # Four samples of exactly half of two units: each has probability 1/2.
    assert dispersion_p(0.0, terms=20, trials=2, q=0.5) == pytest.approx(2 * 0.5**20, rel=1e-3)
    # All counts at an end, (2 - 1)^2 / 0.5 each: again 1/2 each.
    assert dispersion_p(40.0, terms=20, trials=2, q=0.5) == pytest.approx(2 * 0.5**20, rel=1e-3)
    # Two units, one of them in ten of ten steps: 2 * 2 * 2^-10.
    assert extreme_unit_p(np.array([5, 10]), 10, 0.5) == pytest.approx(4 / 1024)


@pytest.mark.parametrize("sizes_off", [1.6, 0.5])
def test_the_bound_on_a_spread_is_near_its_tail(sizes_off: float) -> None:
    # 60 counts of Bin(400, 0.3), nearly normal: the sum is nearly chi-square with 60 degrees of freedom.
    rng = np.random.default_rng(0)
    draws = ((rng.binomial(400, 0.3, (50_000, 60)) - 120) ** 2).sum(axis=1) / 84
    observed = 60 * sizes_off
    tail = (draws >= observed).mean() if sizes_off > 1 else (draws <= observed).mean()
    assert 2 * tail < dispersion_p(observed, terms=60, trials=400, q=0.3) < 20 * tail


def test_overlap_has_the_law_of_the_chain() -> None:
    # 6 steps of one unit, all 64 outcomes: the tail at 4 pairs, and a bound on it that is not far.
    q, tail = 0.4, 0.0
    for chain in itertools.product([0, 1], repeat=6):
        pairs = sum(a * b for a, b in itertools.pairwise(chain))
        tail += (pairs >= 4) * q ** sum(chain) * (1 - q) ** (6 - sum(chain))
    assert 2 * tail < overlap_p(4, units=1, steps=6, q=q) < 12 * tail


def test_everybody_at_rate_one_is_exact() -> None:
    assert judged(5, 1.0, [np.arange(5)] * 3).p_value == 1.0
    assert judged(5, 1.0, [np.arange(5), np.arange(4)]).p_value == 0.0


def test_samples_are_sets_of_units_that_are_there() -> None:
    for wrong in ([1, 1, 2], [5], [-1]):
        verdict = judged(5, 0.5, [np.array([0, 2]), np.array(wrong)])
        assert verdict.p_value == 0.0
        assert "twice in a sample" in verdict.test


def test_nothing_is_suspected_without_a_step_or_a_unit() -> None:
    assert judged(5, 0.5, []).p_value == 1.0
    assert judged(0, 0.5, [np.array([], np.int64)] * 3).p_value == 1.0


def test_record_needs_the_memory_of_its_units_however_many_steps() -> None:
    record = SamplerRecord(50, 0.2)
    sizes = []
    for sample in poisson(50, 0.2, 300, np.random.default_rng(0)):
        record.observe(sample)
        sizes.append(sum(np.asarray(value).nbytes for value in vars(record._seen).values()))
    assert set(sizes) == {sizes[0]}
    assert sizes[0] < 50 * 16


def test_a_contradiction_is_one_line_without_sizes_or_units() -> None:
    n, q, steps = REALISTIC[0]
    verdict = judged(n, q, fixed_cohorts(n, q, steps, np.random.default_rng(0)))
    with pytest.raises(UserError, match=r"spread of sample sizes: p = .* the epsilon would be false") as error:
        verdict.require()
    assert "\n" not in str(error.value)
    assert not {"718", "719", "1437"} & set(str(error.value).replace(",", " ").split())
    SamplerVerdict(p_value=LEVEL, test="").require()


def test_a_verdict_has_one_digit() -> None:
    record = SamplerRecord(30, 0.3)
    for sample in poisson(30, 0.42, 40, np.random.default_rng(4)):
        record.observe(sample)
    exact = min(1.0, 5 * min(record.p_values().values()))
    assert 0 < exact < 1
    assert record.verdict().p_value == float(f"{exact:.0e}")


def test_total_is_judged_by_the_binomial_law() -> None:
    # 0.05 * 2000 = 100 expected; 130 is at 3.1 deviations.
    assert binomial_p(130, 2000, 0.05) == pytest.approx(2 * binom.sf(129, 2000, 0.05))
    assert binomial_p(70, 2000, 0.05) == pytest.approx(2 * binom.cdf(70, 2000, 0.05))


@pytest.mark.parametrize(("successes", "trials"), [(0, 20), (20, 20), (3, 20), (11, 20)])
def test_binomial_p_value_is_twice_the_smaller_tail(successes: int, trials: int) -> None:
    law = binom(trials, 0.4)
    expected = min(1, 2 * min(law.cdf(successes), law.sf(successes - 1)))
    assert binomial_p(successes, trials, 0.4) == pytest.approx(expected, rel=1e-9)
