"""The membership test's curve, worked out by hand, and the region that a claim leaves it."""

import math

import numpy as np
import pytest

from pipelines.audit.membership import Roc, allowed, roc
from pipelines.report.membership import CAPTION, membership_figure


def test_roc_counts_what_lies_above_each_threshold() -> None:
    curve = roc(np.array([3.0, 2.0, 0.0]), np.array([2.0, 1.0, -1.0, -2.0]))
    # Thresholds 3, 2, 1, 0, -1, -2, after one above everything.
    assert curve.true_positive == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3, 1, 1, 1])
    assert curve.false_positive == pytest.approx([0, 0, 1 / 4, 1 / 2, 1 / 2, 3 / 4, 1])
    assert curve.true_positive_at(0.001) == pytest.approx(1 / 3)
    assert curve.true_positive_at(0.25) == pytest.approx(2 / 3)
    assert curve.true_positive_at(1) == 1


def test_equal_scores_are_told_apart_by_nobody() -> None:
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


def test_no_test_leaves_the_region_of_a_mechanism_that_keeps_its_claim() -> None:
    # Randomised response with e^eps = 3: the score is the unit's bit, right with probability 3/4.
    rng = np.random.default_rng(0)
    curve = roc((rng.random(50_000) < 0.75).astype(float), (rng.random(50_000) < 0.25).astype(float))
    edge = allowed(curve.false_positive, epsilon=math.log(3), delta=0.0)
    assert (curve.true_positive <= edge + 5 * 0.5 / math.sqrt(50_000)).all()
    assert curve.true_positive[1] == pytest.approx(edge[1], abs=0.02)


@pytest.mark.parametrize("claim", [None, (2.0, 1e-5)])
def test_figure_says_that_no_epsilon_covers_it(claim: tuple[float, float] | None) -> None:
    figure = membership_figure(Roc(np.array([0, 0.1, 1]), np.array([0, 0.3, 1])), label="sgd", claim=claim)
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert "not covered by any epsilon" in CAPTION
    assert figure.get_supxlabel().replace("\n", " ") == CAPTION
    legend = axes.get_legend()
    assert legend is not None
    named = any("ε = 2" in text.get_text() for text in legend.get_texts())
    assert named == (claim is not None)
