"""The membership test's curve, worked out by hand, and the region that a claim leaves it."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from pipelines.auditing.finding import Membership
from pipelines.auditing.membership import Roc, allowed, roc
from pipelines.auditing.membership_figure import (
    CAPTION,
    membership_csv,
    membership_figure,
    membership_table,
    sweep_figure,
)


def test_roc_counts_what_lies_above_each_threshold() -> None:
    curve = roc(np.array([3.0, 2.0, 0.0]), np.array([2.0, 1.0, -1.0, -2.0]))
    # Thresholds 3, 2, 1, 0, -1, -2, after one above everything.
    assert curve.true_positive == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3, 1, 1, 1])
    assert curve.false_positive == pytest.approx([0, 0, 1 / 4, 1 / 2, 1 / 2, 3 / 4, 1])
    assert curve.true_positive_at(0.001) == pytest.approx(1 / 3)
    assert curve.true_positive_at(0.25) == pytest.approx(2 / 3)
    assert curve.true_positive_at(1) == 1


@pytest.mark.parametrize(("others", "rate"), [(100, 0.01), (1000, 0.001), (10_000, 0.01), (90, 0.3)])
def test_a_threshold_exactly_at_a_rate_counts(others: int, rate: float) -> None:
    curve = roc(np.array([others - rate * others]), np.arange(others, dtype=float))
    assert curve.true_positive_at(rate) == 1


def test_equal_scores_are_told_apart_by_no_attack() -> None:
    curve = roc(np.zeros(5), np.zeros(7))
    assert curve.true_positive_at(0.5) == 0
    assert curve.true_positive_at(1.0) == 1


def test_the_allowed_region_is_where_both_inequalities_hold() -> None:
    rates = np.array([0.0, 0.001, 0.5, 1.0])
    edge = allowed(rates, epsilon=math.log(2), delta=0.01)
    # e^eps FPR + delta; from 0.5 on, 1 - e^-eps (1 - delta - FPR) is the smaller: 1 - 0.49 / 2.
    assert edge == pytest.approx([0.01, 0.012, 0.755, 1])
    assert allowed(rates, epsilon=0.0, delta=0.0) == pytest.approx(rates)
    assert allowed(rates, epsilon=2000.0, delta=0.0) == pytest.approx([0, 1, 1, 1])


def test_no_attack_leaves_the_region_of_a_correct_mechanism() -> None:
    # Randomised response with e^eps = 3: the score is the unit's bit, right with probability 3/4.
    rng = np.random.default_rng(0)
    curve = roc((rng.random(50_000) < 0.75).astype(float), (rng.random(50_000) < 0.25).astype(float))
    edge = allowed(curve.false_positive, epsilon=math.log(3), delta=0.0)
    assert (curve.true_positive <= edge + 5 * 0.5 / math.sqrt(50_000)).all()
    assert curve.true_positive[1] == pytest.approx(edge[1], abs=0.02)


def test_a_thinned_curve_keeps_the_rates_that_are_reported() -> None:
    rng = np.random.default_rng(0)
    curve = roc(rng.normal(0.5, 1, 20_000), rng.normal(0, 1, 20_000))
    thin = curve.thinned()
    assert len(thin.false_positive) <= 303 < len(curve.false_positive)
    for rate in (0.0, 0.001, 0.01, 1.0):
        assert thin.true_positive_at(rate) == curve.true_positive_at(rate)
    assert set(thin.false_positive) <= set(curve.false_positive)
    again = Roc.from_dict(json.loads(json.dumps(thin.to_dict())))
    assert np.array_equal(again.true_positive, thin.true_positive)


@pytest.mark.parametrize(
    ("others", "measured"), [(1, set()), (99, set()), (100, {"1pct"}), (999, {"1pct"}), (1000, {"1pct", "0.1pct"})]
)
def test_a_rate_below_one_example_is_not_measured(others: int, measured: set[str]) -> None:
    curve = roc(np.ones(5), np.zeros(others))
    assert {name for name, rate in curve.resolved(others).items() if rate == 1} == measured
    assert {name for name, rate in curve.resolved(others).items() if rate is not None} == measured


def found_in(pipeline: str, epsilon: float | None = None, unit: str | None = None, seed: int = 0) -> Membership:
    delta = None if epsilon is None else 1e-5
    rates: dict[str, float | None] = {"0.1pct": 0.004, "1pct": 0.0213}
    return Membership(
        pipeline=pipeline, model="cnn", dataset="digits", seed=seed, unit=unit, epsilon=epsilon, delta=delta,
        true_positive=rates,
    )  # fmt: skip


CURVE = Roc(np.array([0, 0.1, 1]), np.array([0, 0.3, 1]))


def legend_of(figure: Figure) -> list[str]:
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert figure.get_supxlabel().replace("\n", " ") == CAPTION
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize(
    ("found", "edge"),
    [
        (found_in("sgd"), False),
        (found_in("dp_sgd", 2.0, "example"), True),
        (found_in("dp_fed_avg", 2.0, "user"), False),
    ],
)
def test_figure_draws_the_limit_of_an_examples_epsilon_only(found: Membership, edge: bool) -> None:
    # A user's epsilon says nothing of a test of examples, so that only an example's is drawn.
    assert len(legend_of(membership_figure(CURVE, found))) == 2 + edge


def test_a_sweeps_figure_names_each_kind_of_run_once() -> None:
    runs = [found_in("dp_sgd", 8.0, "example", seed) for seed in (0, 1)]
    runs += [found_in("dp_fed_avg", 2.0, "user"), found_in("sgd")]
    figure = sweep_figure([(found, CURVE) for found in runs])
    assert legend_of(figure) == [
        "guessing", "sgd cnn on digits, no privacy", "dp_fed_avg cnn on digits, ε = 2 a user",
        "dp_sgd cnn on digits, ε = 8 an example (2 runs)",
    ]  # fmt: skip
    dashed = [line.get_linestyle() == "--" for line in figure.axes[0].get_lines()]
    assert sum(dashed) == 1  # what is not private


def test_finding_is_read_back_and_summarised_in_a_line() -> None:
    found = found_in("dp_sgd", 2.0, "example")
    assert Membership.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert re.findall(r"[\d.]+(?= %)", found.summary()) == ["0.4", "0.1", "2.13", "1"]
    header, row = membership_csv([found]).splitlines()
    assert header == "pipeline,model,dataset,unit,epsilon,delta,seed,tpr_at_0.1pct_fpr,tpr_at_1pct_fpr"
    assert row == "dp_sgd,cnn,digits,example,2.0,1e-05,0,0.004,0.0213"
    assert "2.13 %" in membership_table([found])


def test_what_too_few_examples_cannot_show_is_not_claimed() -> None:
    few = replace(found_in("sgd"), true_positive={"0.1pct": None, "1pct": 1.0})
    assert Membership.from_dict(json.loads(json.dumps(few.to_dict()))) == few
    assert few.metrics() == {"diagnostics/membership_tpr_at_1pct_fpr": 1.0}
    assert "TPR 100 % at 1 % FPR" in few.summary()
    assert "1,000 for 0.1 % FPR" in few.summary()
    none = replace(few, true_positive={"0.1pct": None, "1pct": None})
    assert "TPR" not in none.summary()
    assert re.search(r"1,000 for 0.1 %, 100 for 1 % FPR", none.summary())
    assert membership_csv([few]).splitlines()[1].endswith(",,1.0")
    assert "too few examples" in membership_table([few])
    drawn = [text.get_text() for text in membership_figure(CURVE, few).axes[0].texts]
    assert drawn == ["100 %"]
