"""DP-FTRL's plan: what a user may do in it, what that costs, and how it is told."""

import json
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from pipelines.core.errors import UserError
from pipelines.privacy.accounting.calibration import calibrate
from pipelines.privacy.accounting.cross_check import contradictions
from pipelines.privacy.accounting.epsilon import UNKNOWN, accountant_results, rdp_epsilon
from pipelines.privacy.guarantee import PrivacyGuarantee
from pipelines.privacy.mechanisms.base import NeighboringRelation, PrivacyUnit
from pipelines.privacy.mechanisms.planning import plan_for
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism
from pipelines.privacy.mechanisms.tree import TreeMechanism
from pipelines.privacy.participation import TurnRecord, TurnSampler
from pipelines.privacy.statement import statement
from tests.privacy.conftest import dp_fed_avg, privacy, tree


def plan(steps: int = 100, restart_every: int = 100, sigma: float = 4.0, **more: object) -> TreeMechanism:
    values = {"population": 2000, "clients_per_round": 5, "clip_norm": 0.3, "delta": 1e-5} | more
    return TreeMechanism(steps=steps, restart_every=restart_every, noise_multiplier=sigma, **values)  # type: ignore[arg-type]


def gaussian(steps: int, sigma: float = 4.0) -> PoissonGaussianMechanism:
    """As many full Gaussian steps."""
    return PoissonGaussianMechanism(
        unit=PrivacyUnit.USER, population=2000, sampling_probability=1.0, steps=steps, noise_multiplier=sigma,
        clip_norm=0.3, delta=1e-5,
    )  # fmt: skip


def test_the_reference_epsilon_is_reproduced() -> None:
    assert plan().epsilon() == pytest.approx(2.9585089, abs=1e-6)


@pytest.mark.parametrize(("sigma", "published"), [(1.13, 19.74), (8.83, 2.04)])
def test_the_papers_epsilons_are_not_exceeded(sigma: float, published: float) -> None:
    # Kairouz et al. 2021, StackOverflow: 1600 rounds in one tree, delta 1e-6; accounting has become tighter since.
    whole = plan(1600, 1600, sigma, population=10**5, delta=1e-6)
    assert 0.8 * published < whole.epsilon() < published


@pytest.mark.parametrize(
    ("steps", "restart_every", "nodes"),
    [
        (1, 8, 1),
        (63, 64, 6),  # leaves 1 to 63: levels 0 to 5
        (64, 64, 7),
        (100, 100, 7),
        (8, 4, 6),  # two trees of levels 0 to 2
        (250, 100, 20),  # 7 + 7 levels, and 6 for the 50 rounds of the last tree
        (5, 1, 5),
    ],
)
def test_a_user_pays_for_each_node_above_its_leaves(steps: int, restart_every: int, nodes: int) -> None:
    mine = plan(steps, restart_every).epsilon()
    assert mine == pytest.approx(rdp_epsilon(gaussian(nodes)), rel=1e-9)
    # By another route: nodes in a row are one Gaussian mechanism, whose exact epsilon RDP may only exceed, and little.
    assert gaussian(nodes).epsilon() < mine < 1.2 * gaussian(nodes).epsilon()


def test_epsilon_follows_the_rounds_that_ran_and_falls_with_noise() -> None:
    whole = plan(250, 100)
    assert whole.trees == (100, 100, 50)
    assert whole.executed(130).trees == (100, 30)
    spent = [whole.executed(steps).epsilon() for steps in (0, 1, 50, 100, 101, 200, 250)]
    assert spent[0] == 0
    assert all(before < after for before, after in pairwise(spent))
    assert replace(whole, noise_multiplier=5.0).epsilon() < whole.epsilon() == whole.quick_epsilon()
    with pytest.raises(UserError, match="251 executed steps do not fit the 250 planned"):
        whole.executed(251)
    with pytest.raises(UserError, match="noise_multiplier=0"):
        plan(sigma=0.0).epsilon()


def test_only_rdp_answers() -> None:
    found = accountant_results(plan())
    assert [(o.accountant, o.epsilon is None) for o in found] == [
        ("dp-accounting RDP", False), ("dp-accounting PLD", True), ("Opacus PRV", True),
    ]  # fmt: skip
    assert {o.remark for o in found[1:]} == {UNKNOWN}
    assert contradictions(found) == []


@pytest.mark.parametrize("target", [0.5, 2.0, 18.0])
def test_the_least_noise_that_meets_a_target_is_found(target: float) -> None:
    found = calibrate(plan(250, 100, 0.0), target)
    assert found.noise_multiplier == round(found.noise_multiplier, 4)
    assert found.epsilon() <= target < replace(found, noise_multiplier=found.noise_multiplier - 1e-4).epsilon()
    assert replace(found, noise_multiplier=0.0) == plan(250, 100, 0.0)


def test_targets_that_no_noise_reaches_are_refused() -> None:
    with pytest.raises(UserError, match=r"privacy.epsilon=1e-06 cannot be reached in 100 steps with a noise"):
        calibrate(plan(), 1e-6)


def test_schedule_and_cohort_size_follow_from_public_numbers() -> None:
    settings, wishes = dp_fed_avg(rounds=30, clients_per_round=50), tree(population=1000)
    plans = {plan_for(settings, wishes, units=n) for n in (999, 1000, 1001)}
    assert plans == {
        TreeMechanism(
            population=1000, clients_per_round=50, steps=30, restart_every=20, noise_multiplier=1.0, clip_norm=0.5,
            delta=1e-5,
        )
    }  # fmt: skip
    (found,) = plans
    assert isinstance(found, TreeMechanism)
    assert (found.expected_batch_size, found.trees, found.relation) == (
        50,
        (20, 10),
        NeighboringRelation.REPLACE_SPECIAL,
    )
    target = plan_for(settings, tree(noise_multiplier=None, epsilon=3), units=1000)
    assert 2.99 < target.epsilon() <= 3


@pytest.mark.parametrize(
    ("settings", "wishes", "message"),
    [
        ({}, {"restart_every": 21}, "privacy.restart_every=21 with pipeline.clients_per_round=50 gives a tree 1050"),
        (
            {"clients_per_round": 501},
            {},
            r"has trees of one round, .* \(125 gives trees of 8 rounds\) or take more users",
        ),
        ({}, {"restart_every": 1}, "has trees of one round, .* raise privacy.restart_every, up to 20, or use"),
        ({"clients_per_round": 1001}, {}, "pipeline.clients_per_round=1001 gives a tree 1001 turns"),
        ({}, {"delta": 1e-3}, r"privacy.delta=0.001 must lie in \(0, 0.001\)"),
        ({}, {"population": 400}, "privacy.population=400 is far below the units present"),
        ({}, {"population": 900, "restart_every": 19}, "each of the 900 users may join it once"),
    ],
)
def test_schedules_that_break_the_restriction_are_refused(
    settings: dict[str, object], wishes: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        plan_for(dp_fed_avg(**settings), tree(**wishes), units=1000)


def test_only_trees_of_two_rounds_give_a_remark() -> None:
    def remark(*, rounds: int = 30, size: int = 50, restart_every: int | None = None) -> str | None:
        settings = dp_fed_avg(rounds=rounds, clients_per_round=size)
        return plan_for(settings, tree(restart_every=restart_every), units=1000).remark()

    assert re.search(r"pipeline\.clients_per_round \(125 .* 8 ", str(remark(size=400)))
    assert re.search(r"privacy\.restart_every.* 20\b", str(remark(restart_every=2)))
    # Where there are no more rounds than that, longer trees would change nothing.
    assert remark(size=250) is remark(rounds=2, size=400) is remark(rounds=1, size=900) is None


def test_local_work_and_server_optimizers_change_neither_plan_nor_epsilon() -> None:
    changes: list[dict[str, object]] = [
        {}, {"local_epochs": 7}, {"local_batch_size": 1}, {"proximal_strength": 2.0}, {"client_optimizer": "adam"},
        {"client_learning_rate": 9.0, "client_momentum": 0.9}, {"server_optimizer": "adam", "server_momentum": 0.0},
        {"server_learning_rate": 0.1, "server_momentum": 0.0}, {"secure_aggregation": True}, {"engine": "stock"},
    ]  # fmt: skip
    trees = {plan_for(dp_fed_avg(**change), tree(), units=1000) for change in changes}
    poisson = {plan_for(dp_fed_avg(**change), privacy(), units=1000) for change in changes}
    assert len(trees) == len(poisson) == 1
    # What does touch it, as a check of the check.
    more = [{}, {"rounds": 31}, {"clients_per_round": 49}]
    assert len({plan_for(dp_fed_avg(**change), tree(), units=1000) for change in more}) == 3


def cohorts(users: int, size: int, restart_every: int, rounds: int) -> list[np.ndarray]:
    turns = TurnSampler(users, size=size, restart_every=restart_every, rng=np.random.default_rng(0))
    return [turns.draw() for _ in range(rounds)]


def test_each_user_joins_a_tree_at_most_once() -> None:
    drawn = cohorts(users=20, size=3, restart_every=6, rounds=18)
    assert {len(cohort) for cohort in drawn} == {3}
    trees = [np.concatenate(drawn[first : first + 6]) for first in (0, 6, 12)]
    assert all(len(np.unique(rounds)) == 18 for rounds in trees)
    assert not np.array_equal(trees[0], trees[1])  # drawn anew
    assert all(np.isin(rounds, np.arange(20)).all() for rounds in trees)


def test_too_few_users_run_out_until_the_next_tree() -> None:
    drawn = cohorts(users=4, size=3, restart_every=3, rounds=6)
    assert [len(cohort) for cohort in drawn] == [3, 1, 0, 3, 1, 0]
    assert sorted(np.concatenate(drawn[:3])) == sorted(np.concatenate(drawn[3:])) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "cohorts",
    [
        [[0, 1], [2, 0]],  # a user twice in a tree
        [[0, 0]],  # or in a round
        [[0, 1, 2]],  # more users than a turn has
        [[0, 1], [2, 3], [4, 4]],
    ],
)
def test_participation_that_breaks_the_restriction_ends_the_run(cohorts: list[list[int]]) -> None:
    record = TurnRecord(5, size=2, restart_every=2)
    *fine, last = [np.array(cohort) for cohort in cohorts]
    for cohort in fine:
        record.observe(cohort)
    with pytest.raises(UserError, match=f"round {len(cohorts)} contradicts its plan: a tree of 2 rounds has each user"):
        record.observe(last)


def test_participation_within_the_restriction_goes_on() -> None:
    record = TurnRecord(5, size=2, restart_every=2)
    for cohort in ([0, 1], [2, 3], [0, 1], [], [4, 0], [1]):  # the first round of each tree forgets the one before
        record.observe(np.array(cohort, np.int64))


def test_tree_guarantees_survive_json_and_older_files_are_gaussian() -> None:
    guarantee = PrivacyGuarantee.of(plan(250, 100).executed(130), simulated=True, secure_aggregation=True)
    values = json.loads(json.dumps(guarantee.to_dict()))
    assert PrivacyGuarantee.from_dict(values) == guarantee
    assert PrivacyGuarantee.from_dict(values).executed.epsilon() == guarantee.epsilon
    assert (values["mechanism"], values["sampler"]) == ("tree", "none: each user at most once a tree")
    assert (values["relation"], values["expected_batch_size"]) == ("zero_out_one", 5)
    older = PrivacyGuarantee.of(gaussian(3), simulated=False)
    values = {k: v for k, v in older.to_dict().items() if k not in ("mechanism", "secure_aggregation")}
    assert PrivacyGuarantee.from_dict(values) == older


def test_the_statement_tells_of_trees() -> None:
    text = statement(PrivacyGuarantee.of(plan(250, 100), simulated=False))
    numbers = ("2,000 users", "250 rounds", " 5 users", "3 trees", " 100,", "zero-out")
    assert [number for number in numbers if number not in text] == []
    assert "noise of 4 times" in text
    assert not re.search("Poisson|independently|took part", text)


def test_the_statement_says_what_of_secure_aggregation_is_simulated() -> None:
    text = statement(PrivacyGuarantee.of(plan(), simulated=False, secure_aggregation=True))
    clear = statement(PrivacyGuarantee.of(plan(), simulated=False))
    assert "simulated" in text
    assert "32-bit integers" in text
    assert "32-bit integers" not in clear
