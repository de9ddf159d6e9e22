"""The guarantee of an executed plan, as data and in words."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pipelines.config.unions import keys_of_options
from pipelines.privacy.accounting.group import group_epsilon
from pipelines.privacy.guarantee import PrivacyGuarantee
from pipelines.privacy.mechanisms.base import AdaptiveClipping, NeighboringRelation, PrivacyUnit
from pipelines.privacy.mechanisms.planning import plan_for
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism
from pipelines.privacy.rounding import rounded_up
from pipelines.privacy.sampling import poisson_sample
from pipelines.privacy.statement import bound_in_words, statement
from tests.privacy.conftest import dp_fed_avg, privacy_of

PLAN = PoissonGaussianMechanism(
    unit=PrivacyUnit.USER, population=1000, sampling_probability=0.1, steps=100, noise_multiplier=2.2478,
    clip_norm=0.3, delta=1e-5,
)  # fmt: skip


@pytest.mark.parametrize("adaptive", [None, AdaptiveClipping(target_quantile=0.5, learning_rate=0.2, count_stddev=5.0)])
def test_guarantee_survives_json(adaptive: AdaptiveClipping | None) -> None:
    guarantee = PrivacyGuarantee.of(replace(PLAN, adaptive=adaptive), simulated=True)
    assert PrivacyGuarantee.from_dict(json.loads(json.dumps(guarantee.to_dict()))) == guarantee


def test_guarantee_is_the_pld_epsilon_of_the_steps_that_ran() -> None:
    guarantee = PrivacyGuarantee.of(PLAN.executed(40), simulated=False)
    assert guarantee.epsilon == PLAN.executed(40).epsilon() < PLAN.epsilon()
    assert guarantee.to_dict()["steps"] == 40
    assert [opinion.accountant for opinion in guarantee.accountant_results] == [
        "dp-accounting PLD", "dp-accounting RDP", "Opacus PRV",
    ]  # fmt: skip


def test_statement_names_the_unit_epsilon_and_limits() -> None:
    text = statement(PrivacyGuarantee.of(PLAN, simulated=False))
    first = text.split("\n\n")[1]
    assert all(number in first for number in ("1,000 user", "e^2 = 7.39", "1e-05"))
    assert " 0.3." in text  # the clip norm
    two, five = (group_epsilon(PLAN, members) for members in (2, 5))
    assert two is not None
    assert five is not None
    assert f"| 2 | {rounded_up(two)} |\n| 5 | {rounded_up(five)} |" in text
    assert "Simulated" not in text


def test_statement_warns_of_a_fixed_noise_seed() -> None:
    assert "Simulated" in statement(PrivacyGuarantee.of(PLAN, simulated=True)).split("\n\n")[1]


def test_statement_says_which_accountants_confirm_the_epsilon() -> None:
    guarantee = PrivacyGuarantee.of(PLAN, simulated=False)
    pld, rdp, prv = guarantee.accountant_results
    for result in (pld, rdp, prv):
        assert result.epsilon is not None
        assert f"| {result.accountant} | {result.version} | {rounded_up(result.epsilon, 5)} |" in statement(guarantee)
    tolerances = "0.02 plus 0.01%"  # those of PRV
    assert tolerances in statement(guarantee)
    failed = replace(prv, epsilon=None, remark="no answer within 20 s")
    alone = statement(replace(guarantee, accountant_results=(pld, rdp, failed)))
    assert f"| {prv.accountant} | {prv.version} | no answer within 20 s |" in alone
    assert tolerances not in alone


def test_statement_says_whether_the_size_of_the_data_is_public() -> None:
    guarantee = PrivacyGuarantee.of(PLAN, simulated=False)
    derived, stated = (set(statement(guarantee, population_stated=public).splitlines()) for public in (False, True))
    for line in derived ^ stated:  # one line each
        assert "1,000 users" in line
        assert "`privacy.population`" in line
    assert len(derived - stated) == len(stated - derived) == 1


def test_poisson_samples_vary_like_a_binomial_and_include_everyone_equally() -> None:
    rng = np.random.default_rng(7)
    samples = [poisson_sample(200, 0.1, rng) for _ in range(4000)]
    sizes = np.array([len(sample) for sample in samples])
    # Binomial(200, 0.1): mean 20, variance 18. Five standard errors of mean and variance over 4,000 draws.
    assert abs(sizes.mean() - 20) < 5 * np.sqrt(18 / 4000)
    assert abs(sizes.var() - 18) < 5 * 18 * np.sqrt(2 / 4000)
    counts = np.bincount(np.concatenate(samples), minlength=200)
    # Chi-square with 200 degrees of freedom: mean 200, standard deviation 20.
    assert abs(((counts - 400) ** 2 / 360).sum() - 200) < 5 * 20
    assert len(poisson_sample(5, 1.0, rng)) == 5


@pytest.mark.parametrize(
    ("epsilon", "words"), [(2.0004, "e^2.001 = 7.4,"), (0.1, "e^0.1 = 1.11,"), (8.0, "e^8 = 2,981,")]
)
def test_a_bound_is_rounded_upwards(epsilon: float, words: str) -> None:
    # e^2.0004 = 7.3920, e^0.1 = 1.1052, e^8 = 2980.96.
    assert words in bound_in_words(PrivacyUnit.USER, NeighboringRelation.ADD_OR_REMOVE_ONE, epsilon=epsilon, delta=1e-5)


@pytest.mark.parametrize("name", sorted(keys_of_options("privacy")))
def test_a_written_guarantee_reads_back_for_every_mechanism(name: str) -> None:
    plan = plan_for(dp_fed_avg(clients_per_round=50), privacy_of(name=name), units=1000)
    written = PrivacyGuarantee.of(plan, simulated=False).to_dict()
    assert PrivacyGuarantee.from_dict(json.loads(json.dumps(written))).executed == plan
    assert plan.name == ("gaussian" if name in ("fixed", "adaptive") else name)  # by which `verify` finds its schedule
