"""Running averages against averages written out."""

import pytest

from pipelines.model.averaging import share_of_newest

ITERATES = [8.0, 4.0, 2.0, 1.0]


def averages(decay: float) -> list[float]:
    average, path = 100.0, []  # where training starts must not matter
    for step, newest in enumerate(ITERATES, 1):
        average += share_of_newest(step, decay) * (newest - average)
        path.append(average)
    return path


def test_weights_fall_with_every_step_back_and_sum_to_one() -> None:
    # (8), (8 + 2*4) / 3, (8 + 2*4 + 4*2) / 7, (8 + 2*4 + 4*2 + 8*1) / 15
    assert averages(0.5) == pytest.approx([8, 16 / 3, 24 / 7, 32 / 15])


def test_decay_zero_keeps_the_newest_and_near_one_averages() -> None:
    assert averages(0.0) == ITERATES
    assert averages(1 - 1e-9) == pytest.approx([8, 6, 14 / 3, 15 / 4])
