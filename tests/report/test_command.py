"""The commands that repeat points: complete, and no more of them than needed."""

import shlex

import pytest

from pipelines.report.command import commands, folded
from pipelines.report.points import Point, build_points
from tests.report.rows import row


def points(*overrides: str, seeds: int = 2) -> list[Point]:
    rows = []
    for number, words in enumerate(overrides, start=1):
        for seed in range(seeds):
            rows.append(row("dp_sgd", 0.9, seed=seed, epsilon=float(number)))
            rows[-1].tags["overrides"] = f"{words} seed={seed} tracking.uri='sqlite:////a b.db'"
    return build_points(rows)


def test_points_that_differ_in_one_setting_need_one_command() -> None:
    found = commands(points(*(f"experiment=e pipeline=dp_sgd privacy.epsilon={e}" for e in (1, 2, 3))))
    assert found == ["python -m pipelines.run -m experiment=e pipeline=dp_sgd privacy.epsilon=1,2,3 seed=0,1"]


def test_points_with_own_settings_have_own_commands() -> None:
    found = commands(points("privacy.epsilon=1 pipeline.epochs=5", "privacy.epsilon=2 pipeline.epochs=9"))
    assert found == [
        "python -m pipelines.run -m privacy.epsilon=1 pipeline.epochs=5 seed=0,1",
        "python -m pipelines.run -m privacy.epsilon=2 pipeline.epochs=9 seed=0,1",
    ]
    assert len(commands(points("privacy.epsilon=1", "privacy.epsilon=2 pipeline.epochs=9"))) == 2


def test_one_run_is_no_sweep() -> None:
    assert commands(points("pipeline=dp_sgd", seeds=1)) == ["python -m pipelines.run pipeline=dp_sgd seed=0"]


def test_a_point_without_privacy_is_repeated_without_privacy_settings() -> None:
    plain = row("fed_avg", 0.9)
    plain.tags["overrides"] = "pipeline=fed_avg privacy=adaptive privacy.epsilon=3 partition.alpha=1"
    assert commands(build_points([plain])) == ["python -m pipelines.run pipeline=fed_avg partition.alpha=1 seed=0"]


def test_points_without_overrides_have_no_command() -> None:
    assert commands(build_points([row("dp_sgd", 0.9, epsilon=1.0)])) == []


@pytest.mark.parametrize("width", [40, 70])
def test_a_folded_command_is_the_same_to_a_shell(width: int) -> None:
    (command,) = commands(points("model=mlp model.widths=[64, 32] dataset.folder=/a/b/c partition.alpha=0.1"))
    lines = folded(command, width)
    assert len(lines) > 1
    assert max(map(len, lines)) <= width
    assert shlex.split("\n".join(lines).replace("\\\n", "")) == shlex.split(command)
