"""Rows as a run logs them, without an MLflow store."""

from collections.abc import Mapping
from itertools import count

from pipelines.config.pipeline_table import PIPELINES
from pipelines.tracking.read import RunRow

_started = count(1)


def row(
    pipeline: str,
    accuracy: float,
    *,
    seed: int = 0,
    epsilon: float | None = None,
    unit: str = "example",
    delta: str = "0.0001",
    relation: str = "add_or_remove_one",
    accountant: str = "dp-accounting PLD 0.4.3",
    simulated: str = "false",
    status: str = "FINISHED",
    params: Mapping[str, str] | None = None,
    audited: float | None = None,
) -> RunRow:
    """A run; with an epsilon it is private and realises 0.2 % less than its target."""
    number = next(_started)
    tags = {"pipeline": pipeline, "dataset": "digits", "model": "linear", "seed": str(seed), "data.sha256": "ab" * 32}
    values = {"seed": str(seed), "privacy.epsilon": "null", "partition.clients": "100", **(params or {})}
    metrics = {"test/accuracy": accuracy, "test/majority": 0.1}
    if PIPELINES[pipeline].divided or (epsilon is not None and unit == "user"):
        tags["partition.sha256"] = f"differs per seed {seed}"
    if epsilon is not None:
        metrics["privacy/epsilon"] = 0.998 * epsilon
        metrics |= {} if audited is None else {"audit/epsilon_lower_bound": audited}
        values["privacy.epsilon"] = str(epsilon)
        tags |= {
            "privacy.unit": unit,
            "privacy.relation": relation,
            "privacy.delta": delta,
            "privacy.accountant": accountant,
            "privacy.simulated": simulated,
        }
    return RunRow(
        run_id=f"{number:032x}", name="a", status=status, started=number, tags=tags, params=values, metrics=metrics
    )


def sweep() -> list[RunRow]:
    """All four pipelines, two seeds, three epsilons."""
    rows = []
    for seed in (0, 1):
        rows += [row("sgd", 0.97 + seed / 100, seed=seed), row("fed_avg", 0.95, seed=seed)]
        for epsilon, accuracy in ((1.0, 0.91), (2.0, 0.93), (4.0, 0.95)):
            rows.append(row("dp_sgd", accuracy + seed / 100, seed=seed, epsilon=epsilon))
            rows.append(row("dp_fed_avg", accuracy - 0.1, seed=seed, epsilon=epsilon, unit="user"))
    return rows
