import math
from dataclasses import replace

import pytest

from pipelines.report.points import build_points, t_interval
from tests.report.rows import row


def test_interval_is_students() -> None:
    # Mean 0.92, sample deviation 0.02, t(2 degrees, 97.5 %) = 4.302653: 4.302653 * 0.02 / sqrt(3) = 0.049683.
    assert t_interval([0.90, 0.92, 0.94]) == pytest.approx(0.0496827, abs=1e-6)
    # Two values: t(1, 97.5 %) = 12.7062, deviation 0.02 * sqrt(2) / 2, over sqrt(2).
    assert t_interval([0.90, 0.92]) == pytest.approx(12.7062 * 0.01, abs=1e-5)
    assert t_interval([0.9]) is None


def test_seeds_of_one_configuration_are_one_point() -> None:
    rows = [row("dp_fed_avg", 0.90 + 0.02 * seed, seed=seed, epsilon=3.0, unit="user") for seed in (2, 0, 1)]
    (point,) = build_points(rows)
    assert point.accuracy == pytest.approx(0.92)
    assert point.interval == pytest.approx(0.0496827, abs=1e-6)
    assert point.seeds == ("0", "1", "2")
    assert point.run_ids == (rows[1].run_id, rows[2].run_id, rows[0].run_id)
    assert point.privacy is not None
    assert (point.privacy.epsilon, point.privacy.target, point.privacy.delta) == (0.998 * 3.0, 3.0, 1e-4)


def test_repeated_run_counts_once_and_the_latest_wins() -> None:
    (point,) = build_points([row("sgd", 0.5), row("sgd", 0.9)])
    assert (point.accuracy, point.interval, len(point.run_ids)) == (0.9, None, 1)


def test_largest_epsilon_of_the_seeds_is_the_points() -> None:
    long, short = (row("dp_sgd", 0.9, seed=seed, epsilon=2.0) for seed in (0, 1))
    short = replace(short, metrics={**short.metrics, "privacy/epsilon": 1.5})
    (point,) = build_points([long, short])
    assert point.privacy is not None
    assert point.privacy.epsilon == 0.998 * 2.0


def test_different_settings_are_different_points() -> None:
    rows = [row("sgd", 0.9, params={"pipeline.learning_rate": rate}) for rate in ("0.1", "0.5")]
    assert len(build_points(rows)) == 2


@pytest.mark.parametrize("change", [{"device": "cuda"}, {"tracking.uri": "x"}, {"dataset.folder": "x"}])
def test_hardware_and_places_make_no_new_point(change: dict[str, str]) -> None:
    assert len(build_points([row("sgd", 0.9), row("sgd", 0.9, seed=1, params=change)])) == 1


def test_privacy_and_clients_are_no_settings_of_a_central_run() -> None:
    rows = [row("sgd", 0.9), row("sgd", 0.9, seed=1, params={"privacy.epsilon": "3.0", "partition.clients": "7"})]
    assert len(build_points(rows)) == 1
    rows = [row("fed_avg", 0.9), row("fed_avg", 0.9, seed=1, params={"partition.clients": "7"})]
    assert len(build_points(rows)) == 2


OLDER = {"pipeline.name": "dp_sgd", "privacy.clipping": "fixed", "privacy.mechanism": "gaussian"}
"""Parameters of runs that were logged before dp_sgd_users was a pipeline."""


def test_older_runs_over_examples_have_no_user_settings() -> None:
    local = {"pipeline.local_epochs": "2", "pipeline.user_update": "delta"}
    for unit, count in (("example", 1), ("user", 2)):
        older = OLDER | {"privacy.unit": unit}
        rows = [row("dp_sgd", 0.9, seed=s, epsilon=1.0, unit=unit, params=older | p) for s, p in enumerate(({}, local))]
        assert len(build_points(rows)) == count


def test_older_runs_over_users_join_those_of_today() -> None:
    older = OLDER | {"pipeline.user_update": "delta", "pipeline.grad_sample": "auto", "privacy.unit": "user"}
    today = {"pipeline.name": "dp_sgd_users", "pipeline.user_update": "delta", "privacy.name": "fixed"}
    rows = [
        row("dp_sgd", 0.9, epsilon=1.0, unit="user", params=older),
        row("dp_sgd_users", 0.8, seed=1, epsilon=1.0, unit="user", params=today),
    ]
    (point,) = build_points(rows)
    assert (point.pipeline, point.seeds) == ("dp_sgd_users", ("0", "1"))


def test_only_finished_runs_with_their_numbers_count() -> None:
    private = row("dp_sgd", 0.9, epsilon=1.0)
    without_epsilon = replace(private, metrics={"test/accuracy": 0.9})
    rows = [row("sgd", 0.9, status="FAILED"), row("sgd", 0.9, status="RUNNING"), row("sgd", math.nan), without_epsilon]
    assert build_points(rows) == []


def test_non_private_point_has_no_epsilon_at_all() -> None:
    (point,) = build_points([row("sgd", 0.9)])
    assert point.privacy is None


def test_an_audited_point_has_its_smallest_lower_bound() -> None:
    rows = [row("dp_sgd", 0.9, seed=seed, epsilon=2.0, audited=bound) for seed, bound in enumerate((1.5, 1.7, None))]
    for one, name in zip(rows, ("mechanism", "mechanism", "none"), strict=True):
        one.params["audit.name"] = name  # an audit after training makes no new point
    (point,) = build_points(rows)
    assert point.privacy is not None
    assert point.privacy.audited == 1.5
    (plain,) = build_points([row("dp_sgd", 0.9, epsilon=2.0)])
    assert plain.privacy is not None
    assert plain.privacy.audited is None


def test_runs_with_canaries_in_their_data_are_no_points() -> None:
    planted = row("dp_sgd", 0.9, epsilon=2.0, audited=0.1)
    planted.tags["audit.canaries"] = "500"
    assert build_points([planted]) == []
