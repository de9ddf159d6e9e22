"""Running averages against averages written out."""

import numpy as np
import pytest

from pipelines.model.averaging import Rule, share_of_newest

ITERATES = np.array([8.0, 4.0, 2.0, 1.0])


def averages(rule: Rule, *, decay: float = 0.5, tail: float = 0.5) -> list[float]:
    average, path = 100.0, []  # where training starts must not matter
    for step, newest in enumerate(ITERATES, 1):
        average += share_of_newest(rule, step, len(ITERATES), decay=decay, tail=tail) * (newest - average)
        path.append(average)
    return path


def test_without_averaging_the_newest_counts_alone() -> None:
    assert averages("none") == ITERATES.tolist()


def test_exponential_weights_halve_with_every_step_and_sum_to_one() -> None:
    # (8), (8 + 2*4) / 3, (8 + 2*4 + 4*2) / 7, (8 + 2*4 + 4*2 + 8*1) / 15
    assert averages("ema") == pytest.approx([8, 16 / 3, 24 / 7, 32 / 15])
    assert averages("ema", decay=0) == ITERATES.tolist()
    # A decay near one is the plain mean.
    assert averages("ema", decay=1 - 1e-9)[-1] == pytest.approx(3.75)


@pytest.mark.parametrize(("tail", "last"), [(0.5, 1.5), (0.75, 7 / 3), (1.0, 3.75), (0.01, 1.0)])
def test_a_tail_is_the_mean_of_the_last_steps_and_before_it_the_newest(tail: float, last: float) -> None:
    path = averages("tail", tail=tail)
    assert path[-1] == pytest.approx(last)
    before = 4 - max(1, round(4 * tail))
    assert path[:before] == ITERATES[:before].tolist()


@pytest.mark.parametrize("rule", ["none", "ema", "tail"])
def test_a_constant_is_its_own_average(rule: Rule) -> None:
    average = 7.0
    for step in range(1, 50):
        average += share_of_newest(rule, step, 49, decay=0.9, tail=0.3) * (3.0 - average)
        assert average == pytest.approx(3.0)
