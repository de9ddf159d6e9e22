from typing import Any

import pytest

from pipelines.core.errors import UserError
from pipelines.report.panels import Line, build_frontier
from pipelines.report.points import Point, build_points
from pipelines.report.style import CENTRAL, ceiling_colour, line_colours
from pipelines.tracking.read import VARIANT_TAG
from tests.report.rows import row, sweep


def points(*accuracies: float, **changes: Any) -> tuple[Point, ...]:
    rows = [row("dp_sgd", value, epsilon=float(place), **changes) for place, value in enumerate(accuracies, start=1)]
    return tuple(build_points(rows))


@pytest.mark.parametrize(
    "change", [{"unit": "user"}, {"delta": "1e-06"}, {"relation": "replace_one"}, {"accountant": "RDP"}]
)
def test_points_with_another_guarantee_are_never_joined(change: dict[str, str]) -> None:
    mixed = (*points(0.9), points(0.9, 0.95, **change)[1])
    with pytest.raises(ValueError, match="cannot be compared"):
        Line(label="mixed", points=mixed)
    panels = build_frontier(mixed).panels
    assert [len(line.points) for panel in panels for line in panel.lines] == [1, 1]


def test_non_private_points_are_never_on_a_line() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        Line(label="sgd", points=tuple(build_points([row("sgd", 0.9)])))


def test_units_have_panels_of_their_own_with_their_ceilings() -> None:
    example, user = build_frontier(build_points(sweep())).panels
    assert (example.unit, user.unit) == ("example", "user")
    assert [line.pipeline for line in example.lines] == ["dp_sgd"]
    assert [line.pipeline for line in user.lines] == ["dp_fed_avg"]
    assert [ceiling.label for ceiling in example.ceilings] == ["sgd"]
    assert [ceiling.label for ceiling in user.ceilings] == ["sgd", "fed_avg"]
    assert example.floors == user.floors == (("digits", 0.1),)


def test_both_engines_stand_side_by_side_at_user_level() -> None:
    central = [row("dp_sgd", 0.8, epsilon=e, unit="user") for e in (1.0, 2.0)]
    example, user = build_frontier(build_points([*sweep(), *central])).panels
    assert [(line.label, len(line.points)) for line in example.lines] == [("dp_sgd", 3)]
    assert [(line.label, len(line.points)) for line in user.lines] == [("dp_fed_avg", 3), ("dp_sgd_users", 2)]


def test_labels_say_what_differs_and_the_caption_what_does_not() -> None:
    frontier = build_frontier([*points(0.9, 0.92), *points(0.8, 0.82, delta="1e-06")])
    assert [line.label for line in frontier.panels[0].lines] == ["dp_sgd, δ = 0.0001", "dp_sgd, δ = 1e-06"]
    assert "δ" not in frontier.caption
    assert "digits · linear · add or remove one · dp-accounting PLD 0.4.3 · 1 seed" in frontier.caption


def test_colliding_epsilons_split_a_line_by_settings() -> None:
    rates = [points(0.9, 0.92, params={"pipeline.learning_rate": rate}) for rate in ("0.1", "0.5")]
    lines = build_frontier([*rates[0], *rates[1]]).panels[0].lines
    assert [(line.label, len(line.points)) for line in lines] == [
        ("dp_sgd, learning_rate=0.1", 2),
        ("dp_sgd, learning_rate=0.5", 2),
    ]


FIXED = {"privacy.name": "fixed", "privacy.clip_norm": "0.1"}
ADAPTIVE = FIXED | {"privacy.name": "adaptive", "privacy.target_quantile": "0.5", "privacy.count_stddev": "null"}


@pytest.mark.parametrize(
    ("configured", "labels"),
    [
        ((FIXED, ADAPTIVE), ["dp_sgd, privacy=fixed", "dp_sgd, privacy=adaptive"]),
        (
            (FIXED, ADAPTIVE, ADAPTIVE | {"privacy.target_quantile": "0.7"}),
            [
                "dp_sgd, privacy=fixed",
                "dp_sgd, privacy=adaptive, target_quantile=0.5",
                "dp_sgd, privacy=adaptive, target_quantile=0.7",
            ],
        ),
        ((ADAPTIVE, ADAPTIVE | {"privacy.clip_norm": "1.0"}), ["dp_sgd, clip_norm=0.1", "dp_sgd, clip_norm=1.0"]),
    ],
)
def test_labels_name_the_option_of_a_section(configured: tuple[dict[str, str], ...], labels: list[str]) -> None:
    rivals = [point for params in configured for point in points(0.9, params=params)]
    lines = build_frontier(rivals).panels[0].lines
    assert sorted(line.label for line in lines) == sorted(labels)


def test_ceilings_name_their_partition() -> None:
    rows = [row("fed_avg", 0.9, params={"partition.name": name}) for name in ("iid", "shards")]
    (panel,) = build_frontier(build_points([*rows, row("dp_fed_avg", 0.8, epsilon=1.0, unit="user")])).panels
    assert [ceiling.label for ceiling in panel.ceilings] == ["fed_avg, partition=iid", "fed_avg, partition=shards"]


def test_settings_tuned_per_epsilon_stay_one_line() -> None:
    first = points(0.9, params={"pipeline.learning_rate": "0.1"})
    second = points(0.9, 0.92, params={"pipeline.learning_rate": "0.5"})[1]
    (line,) = build_frontier([*first, second]).panels[0].lines
    assert (line.label, len(line.points)) == ("dp_sgd", 2)


def test_the_caption_names_the_features_of_a_model() -> None:
    assert "linear on scattering" in build_frontier(points(0.9, params={"features.name": "scattering"})).caption
    assert "linear · δ" in build_frontier(points(0.9, params={"features.name": "none"})).caption


def test_variants_have_lines_and_ceilings_of_their_own() -> None:
    rows = []
    for variant in ("near", "far"):
        rows += [row("dp_sgd", 0.9, epsilon=e) for e in (1.0, 2.0)] + [row("sgd", 0.95)]
        for made in rows[-3:]:
            made.tags[VARIANT_TAG] = variant
    (panel,) = build_frontier(build_points([*rows, row("sgd", 0.96)])).panels
    assert [line.label for line in panel.lines] == ["dp_sgd, far", "dp_sgd, near"]
    assert [ceiling.label for ceiling in panel.ceilings] == ["sgd", "sgd, far", "sgd, near"]
    far, near = line_colours(panel.lines)
    assert [ceiling_colour(panel, ceiling) for ceiling in panel.ceilings] == [CENTRAL, far, near]
    assert far != near


def test_fixed_noise_seed_is_reported() -> None:
    frontier = build_frontier(points(0.9, 0.92, simulated="true"))
    assert "fixed seed" in frontier.caption


def test_without_private_runs_the_ceilings_are_shown() -> None:
    (panel,) = build_frontier(build_points([row("sgd", 0.9)])).panels
    assert (panel.unit, panel.lines, panel.ceilings[0].label) == (None, (), "sgd")


def test_no_runs_is_one_line() -> None:
    with pytest.raises(UserError, match="no finished runs"):
        build_frontier([])
