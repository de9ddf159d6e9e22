"""The cost of choosing among runs against published and library values."""

import re
from dataclasses import replace
from math import inf

import pytest
from dp_accounting import dp_event as events
from dp_accounting.rdp import RdpAccountant

from pipelines.privacy.accounting.epsilon import rdp_epsilon
from pipelines.privacy.guarantee import PrivacyGuarantee
from pipelines.privacy.hyperparameter_selection import (
    ChoosingCost,
    PrivateRun,
    choosing_costs,
    choosing_statement,
    cost_metrics,
    no_common_bound,
)
from pipelines.privacy.mechanisms.base import PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism
from pipelines.privacy.rounding import rounded_up

STRONG = PoissonGaussianMechanism(
    unit=PrivacyUnit.EXAMPLE, population=60_000, sampling_probability=1 / 15, steps=600, noise_multiplier=6.196,
    clip_norm=1.0, delta=1e-5,
)  # fmt: skip
WEAK = replace(STRONG, noise_multiplier=2.433)
USERS = replace(WEAK, unit=PrivacyUnit.USER, population=1000)


def runs(*plans: PoissonGaussianMechanism, division: str = "") -> list[PrivateRun]:
    # Results of other accountants play no part here.
    found = [
        PrivacyGuarantee(epsilon=plan.epsilon(), executed=plan, accountant_results=(), simulated=False)
        for plan in plans
    ]
    return [PrivateRun(guarantee=guarantee, division=division) for guarantee in found]


def cost(*plans: PoissonGaussianMechanism) -> ChoosingCost:
    (found,) = choosing_costs(runs(*plans))
    return found


def library(plan: PoissonGaussianMechanism, mean: float, shape: float) -> float:
    event = events.RepeatAndSelectDpEvent(plan.dp_event(), mean=mean, shape=shape)
    return float(RdpAccountant().compose(event).get_epsilon(plan.delta))


def test_the_best_of_ten_runs_costs_what_the_reference_says() -> None:
    # One run has 3.27 by RDP; the best of a geometric number of runs 6.17, of a Poisson number 7.12, mean 10.
    assert rdp_epsilon(WEAK) == pytest.approx(3.27, abs=0.01)
    found = cost(*[WEAK] * 10)
    assert (found.runs, found.single) == (10, WEAK.epsilon())
    assert found.select_best == pytest.approx(7.12, abs=0.01)
    assert found.select_best_geometric == pytest.approx(6.17, abs=0.01)
    assert found.select_best == pytest.approx(library(WEAK, 10, inf), rel=1e-12)
    assert found.select_best_geometric == pytest.approx(library(WEAK, 10, 1.0), rel=1e-12)


def test_a_stronger_setting_changes_only_the_number_of_runs() -> None:
    mixed = cost(*[WEAK] * 2, *[STRONG] * 2)
    assert mixed.select_best == pytest.approx(library(WEAK, 4, inf), rel=1e-12)
    assert mixed.single == WEAK.epsilon()


def test_settings_without_a_single_worst_are_bounded_together() -> None:
    # Rare samples with little noise, and all data with much: their divergences cross.
    rare = replace(STRONG, sampling_probability=0.001, noise_multiplier=0.7, steps=1000)
    every = replace(STRONG, sampling_probability=1.0, noise_multiplier=20.0, steps=50)
    curves = [RdpAccountant().compose(plan.dp_event()).rdp for plan in (rare, every)]
    assert (curves[0] > curves[1]).any()
    assert (curves[0] < curves[1]).any()
    both = cost(rare, every).select_best
    assert both is not None
    assert both > max(library(plan, 2, inf) for plan in (rare, every)) - 1e-12


def test_a_random_number_dearer_than_all_runs_is_explained() -> None:
    alike = cost(*[WEAK] * 4)
    assert alike.select_best is not None
    assert alike.select_best < alike.publish_all
    # Three more runs with strong protection cost little together, but a random run may be as weak as the weakest.
    mixed = cost(WEAK, *[STRONG] * 3)
    assert mixed.select_best is not None
    assert mixed.select_best == alike.select_best > mixed.publish_all
    words = "Here the best of a random number costs more than all 4"
    # Numbers that read alike are not called unequal.
    close = replace(mixed, publish_all=mixed.select_best - 1e-9)
    texts = [choosing_statement([item], unprotected=0, unknown=0) for item in (alike, mixed, close)]
    assert [text.count(words) for text in texts] == [0, 1, 0]


def test_a_sweep_logs_no_metric_without_its_theorems_conditions() -> None:
    # It runs what its user listed, not a random number of runs.
    assert set(cost_metrics([cost(WEAK, STRONG)])) == {"privacy/epsilon_publish_all"}


def test_publishing_everything_is_the_composition_of_all_runs() -> None:
    # Three times 600 steps are 1800 steps; full samples compose as mu^2 adds up: 2 (1/2)^2 + (1/sqrt 2)^2 = 1.
    assert cost(WEAK, WEAK, WEAK).publish_all == pytest.approx(replace(WEAK, steps=1800).epsilon(), abs=1e-3)
    half = replace(STRONG, sampling_probability=1.0, steps=1, noise_multiplier=2.0)
    other = replace(half, noise_multiplier=2**0.5)
    assert cost(half, other, half).publish_all == pytest.approx(4.377178, abs=1e-3)
    assert cost(half, other, half).accountant == "PLD"


def test_one_run_is_no_choice_and_no_step_no_run() -> None:
    alone = cost(WEAK, WEAK.executed(0))
    assert (alone.runs, alone.single) == (1, WEAK.epsilon())
    assert alone.publish_all == pytest.approx(WEAK.epsilon(), abs=1e-4)
    # A random number of runs with mean one is another thing: it may come out at two or more, and costs more.
    assert library(WEAK, 1, inf) > alone.single + 0.3
    assert alone.select_best is alone.select_best_geometric is None
    assert set(cost_metrics([alone])) == {"privacy/epsilon_publish_all"}
    text = choosing_statement([alone], unprotected=0, unknown=0)
    assert [row.split(" | ")[1] for row in text.splitlines() if row.endswith("PLD |")] == [
        f"at most {rounded_up(alone.single)}", rounded_up(alone.publish_all),
    ]  # fmt: skip
    assert "Poisson" not in text
    assert "random" not in text
    assert choosing_costs(runs(WEAK.executed(0))) == []


def test_units_and_deltas_are_counted_apart() -> None:
    found = choosing_costs(runs(WEAK, WEAK, USERS, USERS))
    assert [(item.unit, item.runs) for item in found] == [("example", 2), ("user", 2)]
    assert set(cost_metrics(found)) == {f"privacy/epsilon_publish_all_{unit}" for unit in ("example", "user")}
    # All runs count at each delta that one of them has.
    deltas = choosing_costs(runs(WEAK, replace(WEAK, delta=1e-6)))
    assert [(item.delta, item.runs) for item in deltas] == [(1e-5, 2), (1e-6, 2)]
    assert deltas[0].publish_all < deltas[1].publish_all
    assert "privacy/epsilon_publish_all_1e-06" in cost_metrics(deltas)


def test_runs_whose_steps_together_drown_delta_are_bounded_by_rdp() -> None:
    every = replace(STRONG, sampling_probability=1.0, noise_multiplier=2000.0, steps=150_000, delta=1e-10)
    both = cost(every, every)
    assert both.accountant == "RDP"
    assert both.publish_all > cost(every).publish_all
    assert cost(every).accountant == "PLD"
    # And a delta that only the shorter run could have is nobody's.
    found = choosing_costs(runs(replace(every, steps=500_000, delta=1e-9), replace(every, steps=9)))
    assert [item.delta for item in found] == [1e-9]


def test_the_text_says_what_each_number_needs() -> None:
    found = cost(WEAK, WEAK, STRONG)
    assert found.select_best is not None
    text = choosing_statement([found], unprotected=2, unknown=0)
    assert f"| {rounded_up(found.publish_all)} |" in text
    assert f"mean 3 | {rounded_up(found.select_best)} | RDP" in text
    assert re.findall(r"\b(\d+) runs", text)[0] == "3"
    assert "2 runs" in text  # those without protection
    assert "Simulated" not in text
    assert "Simulated" in choosing_statement([replace(found, simulated=True)], unprotected=0, unknown=0)


def test_a_run_without_a_guarantee_leaves_no_bound() -> None:
    text = choosing_statement([], unprotected=0, unknown=1)
    assert text != choosing_statement([], unprotected=0, unknown=0)
    assert "|" not in text  # no table


def test_runs_with_different_users_have_no_bound_together() -> None:
    first, second = runs(USERS, USERS, division="first"), runs(USERS, division="second")
    examples = runs(WEAK, WEAK)
    found = choosing_costs([*examples, *first, *second])
    assert [(item.unit, item.division, item.runs) for item in found] == [
        ("example", None, 2), ("user", "first", 2), ("user", "second", 1),
    ]  # fmt: skip
    # No number of users is logged, and that of examples still says that there are others.
    assert set(cost_metrics(found)) == {"privacy/epsilon_publish_all_example"}
    refusal = no_common_bound(found)
    assert re.findall(r"\d+", refusal)[:2] == ["3", "2"]  # runs, divisions
    assert "partition.seed" in refusal
    text = choosing_statement(found, unprotected=0, unknown=0)
    assert refusal in text
    examples_head, users_head = (line for line in text.splitlines() if line.startswith("## "))
    assert "2 runs that protect examples" in examples_head
    assert "2 runs that protect users" in users_head
    assert users_head.endswith("first")  # the division
    # What one division costs is what it would cost alone.
    (alone,) = choosing_costs(first)
    assert replace(found[1], division=None) == alone
    assert alone.publish_all > USERS.epsilon() + 1
    assert no_common_bound([alone]) == ""


def test_runs_with_their_own_users_leave_no_number() -> None:
    own = [run for seed in range(3) for run in runs(USERS, division=f"seed {seed}")]
    # One more that took no step knows no users either.
    found = choosing_costs([*own, *runs(USERS.executed(0), division="seed 3")])
    assert cost_metrics(found) == {}
    text = choosing_statement(found, unprotected=0, unknown=0)
    assert re.findall(r"\d+", text)[:2] == ["3", "3"]  # runs, divisions
    assert "epsilon" not in text
