"""Prints the bounds of JAX Privacy's auditing module for a grid of attacks, as JSON; needs an interpreter with it.

README.md has the commands.
"""

import json
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import version
from itertools import product
from typing import Any

import numpy as np
from jax_privacy import auditing

Row = dict[str, Any]
GUESSES = (  # canaries, guesses, correct
    (10, 10, 0), (10, 10, 10), (10, 4, 3), (100, 100, 50), (100, 100, 80), (100, 20, 20), (1000, 100, 95),
    (1000, 200, 120), (1000, 1000, 1000), (5000, 50, 50), (5000, 800, 640), (100_000, 2000, 1900),
)  # fmt: skip
DELTAS = (0.0, 1e-9, 1e-5, 1e-3)
EPSILONS = (0.0, 0.1, 1.0, 3.0, 8.0)
SIGNIFICANCES = (0.1, 0.05, 0.001)
ERRORS = ((0, 1), (1, 1), (0, 100), (3, 100), (50, 100), (99, 100), (7, 5000), (2500, 5000), (0, 100_000))
# False positives, negatives, false negatives, positives: thresholds that separate the two with certainty.
ARMS = (
    (0, 100, 0, 100), (10, 100, 5, 200), (1, 1000, 600, 1000), (300, 1000, 300, 1000), (150, 5000, 40, 900),
    (324, 1000, 324, 1000), (0, 20_000, 9000, 20_000),
)  # fmt: skip
MEMBERS = [(37 * k) % 101 + 12 for k in range(80)]
OTHERS = [(53 * k) % 97 for k in range(90)]


def main() -> None:
    """Prints one row per line."""
    packages = ("jax-privacy", "dp-accounting", "numpy", "scipy")
    origin = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    rows = ",\n  ".join(json.dumps(row) for row in [*p_values(), *bounds(), *error_rates(), *gaussians(), *hull()])
    sys.stdout.write(f'{{"origin": {json.dumps(origin)},\n "rows": [\n  {rows}\n ]}}\n')


def p_values() -> Iterator[Row]:
    """P-values of one run's guesses."""
    for (canaries, guesses, correct), delta, epsilon in product(GUESSES, DELTAS, EPSILONS):
        value = auditing._one_run_p_value(canaries, guesses, correct, epsilon, delta)
        given = {"canaries": canaries, "guesses": guesses, "correct": correct, "delta": delta, "epsilon": epsilon}
        yield {"kind": "p_value", **given, "value": float(value)}


def bounds() -> Iterator[Row]:
    """Epsilons from one run's guesses: guessed canaries score 1, others 0."""
    for (canaries, guesses, correct), delta, significance in product(GUESSES, DELTAS[1:], SIGNIFICANCES):
        wrong, silent = guesses - correct, canaries - guesses
        inside, outside = [1] * correct + [0] * (silent // 2), [1] * wrong + [0] * (silent - silent // 2)
        if not inside or not outside:  # their function needs one of each; the result depends on the sum only
            continue
        value = auditing.CanaryScoreAuditor(inside, outside).epsilon_one_run(
            significance, delta, threshold_strategy=auditing.Explicit(0.5)
        )
        given = {"canaries": canaries, "guesses": guesses, "correct": correct, "delta": delta}
        yield {"kind": "one_run", **given, "significance": significance, "value": float(value)}


def error_rates() -> Iterator[Row]:
    """Clopper-Pearson's upper ends."""
    for (errors, trials), significance in product(ERRORS, SIGNIFICANCES):
        value = float(auditing._clopper_pearson_upper(errors, trials, significance))
        yield {
            "kind": "clopper_pearson", "errors": errors, "trials": trials, "significance": significance, "value": value
        }  # fmt: skip


def gaussians() -> Iterator[Row]:
    """Epsilons of Gaussians that a threshold separated; the significance is divided by `thresholds`."""
    for (false_positives, negatives, false_negatives, positives), delta in product(ARMS, DELTAS[1:]):
        inside = [0] * false_negatives + [1] * (positives - false_negatives)
        outside = [1] * false_positives + [0] * (negatives - false_positives)
        auditor = auditing.CanaryScoreAuditor(inside, outside)
        thresholds = len(auditor._fn_counts)
        for significance in SIGNIFICANCES:
            value = auditor.epsilon_from_gdp(significance, delta, eps_tol=1e-9)
            given = {"false_positives": false_positives, "negatives": negatives}
            given |= {"false_negatives": false_negatives, "positives": positives}
            given |= {"delta": delta, "significance": significance, "thresholds": thresholds}
            yield {"kind": "gaussian", **given, "value": float(value)}


def hull() -> Iterator[Row]:
    """True positive rates of a membership test, at the corners of its curve and halfway between them."""
    auditor = auditing.CanaryScoreAuditor(np.array(MEMBERS), np.array(OTHERS))
    corners = auditor._get_fp_counts() / len(OTHERS)
    for kind, rates in (("corners", corners[:-1]), ("between", (corners[1:] + corners[:-1]) / 2)):
        value = np.asarray(auditor.tpr_at_given_fpr(rates)).tolist()
        yield {"kind": kind, "members": MEMBERS, "others": OTHERS, "rates": rates.tolist(), "value": value}


if __name__ == "__main__":
    main()
