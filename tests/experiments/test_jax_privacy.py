"""Our bounds beside those of JAX Privacy's auditing module, as it gave them: experiments/kits/README.md says how."""

import json
import subprocess
from typing import Any

import numpy as np
import pytest

from experiments.speed.environments import available, interpreter
from pipelines.auditing.lower_bounds import (
    clopper_pearson_upper,
    gaussian_mu_lower_bound,
    one_run_lower_bound,
    one_run_p_value,
)
from pipelines.auditing.membership import roc
from pipelines.core.paths import REPOSITORY
from pipelines.privacy.accounting.gaussian_pair import gaussian_pair_epsilon

KITS = REPOSITORY / "experiments" / "kits"
RECORD = json.loads((KITS / "jax_privacy_bounds.json").read_text())
GUESSES = ("canaries", "guesses", "correct", "delta")
ARMS = ("false_positives", "negatives", "false_negatives", "positives")
TOLERANCE = 1e-6


def rows(kind: str) -> list[dict[str, Any]]:
    found = [row for row in RECORD["rows"] if row["kind"] == kind]
    assert found
    return found


def pick(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names}


def largest_gap(ours: list[float], kind: str) -> float:
    theirs = [row["value"] for row in rows(kind)]
    assert len(set(theirs)) > len(theirs) / 4  # a grid of zeros and ones would compare nothing
    return float(np.abs(np.subtract(ours, theirs)).max())


def test_p_values_of_one_run_are_theirs() -> None:
    ours = [one_run_p_value(row["epsilon"], **pick(row, *GUESSES)) for row in rows("p_value")]
    assert largest_gap(ours, "p_value") < TOLERANCE


def test_bounds_from_one_run_are_theirs() -> None:
    ours = [one_run_lower_bound(**pick(row, *GUESSES), confidence=1 - row["significance"]) for row in rows("one_run")]
    assert largest_gap(ours, "one_run") < TOLERANCE


def test_clopper_pearson_limits_are_theirs() -> None:
    ours = [
        clopper_pearson_upper(row["errors"], row["trials"], 1 - row["significance"]) for row in rows("clopper_pearson")
    ]
    assert largest_gap(ours, "clopper_pearson") < TOLERANCE


def test_epsilons_of_gaussians_told_apart_are_theirs() -> None:
    # They divide their significance among all thresholds that they try; ours is fixed before anything is seen.
    ours = []
    for row in rows("gaussian"):
        mu = gaussian_mu_lower_bound(**pick(row, *ARMS), confidence=1 - row["significance"] / row["thresholds"])
        assert mu > 0  # below that they once took the absolute value
        ours.append(gaussian_pair_epsilon((0.0, 1.0), (mu, 1.0), row["delta"]))
    assert largest_gap(ours, "gaussian") < TOLERANCE


def test_membership_curve_meets_theirs_at_its_corners() -> None:
    # Between two thresholds they toss a coin, which ours does not: it stays below.
    (corners,), (between,) = rows("corners"), rows("between")
    curve = roc(np.array(corners["members"], np.float64), np.array(corners["others"], np.float64))
    assert [curve.true_positive_at(rate) for rate in corners["rates"]] == pytest.approx(corners["value"], abs=TOLERANCE)
    assert (np.array([curve.true_positive_at(rate) for rate in between["rates"]]) <= between["value"]).all()


def test_the_record_is_what_their_code_gives() -> None:
    if not available("jax_privacy"):
        pytest.skip("JAX Privacy is not built; experiments/speed/peers/setup jax_privacy")
    command = [str(interpreter("jax_privacy")), str(KITS / "jax_privacy_bounds.py")]
    now = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["rows"]
    values = [[row.pop("value") for row in found] for found in (now, RECORD["rows"])]
    assert now == RECORD["rows"]
    assert np.hstack(values[0]) == pytest.approx(np.hstack(values[1]), abs=1e-9)
