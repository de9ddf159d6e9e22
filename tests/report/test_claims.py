"""Every epsilon that is printed as a claim is at least the one that was logged, and none prints as zero."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from pipelines.auditing.finding import AuditError, Finding, Membership
from pipelines.auditing.membership_figure import membership_table
from pipelines.privacy.guarantee import PrivacyGuarantee
from pipelines.privacy.mechanisms.base import PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism
from pipelines.privacy.statement import statement
from pipelines.recipes import stages
from pipelines.recipes.drift import build_cells
from pipelines.recipes.record_readme import markdown_table
from pipelines.report import interactive, panels, style, table
from pipelines.report.points import Point, build_points
from pipelines.runs.launch import _spent
from tests.recipes.results import row as result_row
from tests.report.rows import row as run_row

EPSILONS = (4.45959599417203e-05, 0.564420915485025, 0.99951, 1.00004, 7.99949, 12.3449, 123.4, 13492399.289)


def guarantee_of(epsilon: float) -> PrivacyGuarantee:
    plan = PoissonGaussianMechanism(
        unit=PrivacyUnit.EXAMPLE, population=100, sampling_probability=0.5, steps=2, noise_multiplier=5.0,
        clip_norm=1.0, delta=0.00123456749,
    )  # fmt: skip
    found = PrivacyGuarantee.of(plan, simulated=False)
    first = replace(found.accountant_results[0], epsilon=epsilon)
    return replace(found, epsilon=epsilon, accountant_results=(first, *found.accountant_results[1:]))


def point_of(epsilon: float) -> Point:
    private = run_row("dp_sgd", 0.9, epsilon=1.0)
    return build_points([replace(private, metrics={**private.metrics, "privacy/epsilon": epsilon})])[0]


def table_of(epsilon: float) -> str:
    return table.frontier_table(panels.build_frontier([point_of(epsilon)])).partition("dp_sgd ")[2]


def membership_of(epsilon: float) -> Membership:
    return Membership(
        pipeline="dp_sgd", model="m", dataset="d", seed=0, unit="example", epsilon=epsilon, delta=1e-5,
        true_positive={"0.1pct": 0.0, "1pct": 0.0},
    )  # fmt: skip


def readme_of(epsilon: float) -> str:
    return markdown_table(build_cells([result_row(0.9, seed=0, epsilon=epsilon)], "a test"))


PLACES: dict[str, Callable[[float], str]] = {
    "terminal": lambda epsilon: _spent(guarantee_of(epsilon)),
    "statement": lambda epsilon: statement(guarantee_of(epsilon)).partition("dp-accounting PLD | ")[2].split("|")[1],
    "frontier table": table_of,
    "hover": lambda epsilon: interactive.hover_text(point_of(epsilon)).partition("ε = ")[2],
    "kept hover": lambda epsilon: interactive.kept_text(point_of(epsilon)).partition("e^")[2],
    "tick": style.epsilon_text,
    "stage": stages.epsilon_text,
    "membership label": lambda epsilon: membership_of(epsilon).label.partition("ε = ")[2],
    "membership table": lambda epsilon: membership_table([membership_of(epsilon)]).partition("example")[2],
    "README": lambda epsilon: readme_of(epsilon).partition("example")[2],
}  # fmt: skip


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("place", PLACES)
def test_printed_epsilon_is_at_least_the_logged_one(place: str, epsilon: float) -> None:
    printed = float(re.findall(r"\d[\d.]*(?:e[+-]?\d+)?", PLACES[place](epsilon))[0])
    assert epsilon <= printed <= max(1.1 * epsilon, 10 * epsilon if place == "stage" and epsilon > 1e3 else 0)


def test_printed_delta_is_at_least_the_logged_one() -> None:
    printed = _spent(guarantee_of(1.0)).rpartition(" ")[2]
    assert float(printed) >= 0.00123456749


@pytest.mark.parametrize("claim", [1.23449, 1.0, 4e-9])
def test_refutation_prints_a_bound_above_the_claim(claim: float) -> None:
    finding = Finding(
        audit="one_run", claim=claim, epsilon_lower_bound=claim * (1 + 1e-9), epsilon_estimate=None, confidence=0.95
    )
    with pytest.raises(AuditError) as refutation:
        finding.require()
    bound, printed = re.findall(r"at least (\S+) .* but (\S+) is claimed", str(refutation.value))[0]
    assert claim <= float(printed) < float(bound) <= claim * (1 + 1e-9)
