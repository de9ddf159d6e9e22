"""Points of the frontier: runs that differ in their seed only, with mean and interval."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from pipelines.config.renames import pipeline_of, renamed_params
from pipelines.tracking.read import VARIANT_TAG, RunRow

CONFIDENCE = 0.95
IRRELEVANT = {
    "seed", "device", "threads", "debug", "evaluations", "privacy.noise_seed", "privacy.release_copies",
    "dataset.folder", "dataset.file", "dataset.bounds",
}  # fmt: skip
"""Parameters in which runs of one point may differ: repetition, hardware, and location and bounds of the data.

The fingerprint of the data says whether it is the same."""
LOWER_BOUND = "audit/epsilon_lower_bound"
OVERRIDE = re.compile(r" (?=[+~]*[\w./@]+=)")
"""The space between two overrides in one line."""
STRENGTH = ("privacy.epsilon", "privacy.noise_multiplier")
"""Parameters that move a run along its frontier."""


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """The guarantee of the runs of a point.

    Attributes:
      epsilon: realised; the largest over the seeds.
      target: the epsilon that was asked for; None if the noise multiplier was given.
      delta, unit, relation, accountant: as tagged.
      noise_multiplier: sigma; None if it was not logged.
      simulated: whether the noise came from a fixed seed; the guarantee then holds for fresh noise only.
      audited: the smallest lower bound on epsilon that audits of these runs proved. The largest of several bounds would
        exceed the truth more often than a single one. None if no run was audited.
      population: public number of units; None where it is not known.
    """

    epsilon: float
    target: float | None
    delta: float
    unit: str
    relation: str
    accountant: str
    noise_multiplier: float | None
    simulated: bool
    audited: float | None = None
    population: int | None = None


@dataclass(frozen=True, kw_only=True)
class Point:
    """One configuration, over its seeds.

    Attributes:
      pipeline, dataset, model: names; the name of the model includes its features, unless those are the inputs.
      variant: of the recipe's part; empty if it has none.
      data_sha256: fingerprint of the data.
      settings: every relevant parameter except those of `STRENGTH`.
      accuracy: mean over seeds, in [0, 1].
      interval: half-width of the 95 % t-interval of that mean; None for a single seed.
      seeds, run_ids: in order of the seed.
      majority: accuracy of always answering the most frequent class; None if it was not logged.
      overrides: command-line overrides of the first run, without those of the store; None if they were not logged.
      privacy: None where nothing is private; such a point has no epsilon.
    """

    pipeline: str
    dataset: str
    model: str
    variant: str
    data_sha256: str
    settings: tuple[tuple[str, str], ...]
    accuracy: float
    interval: float | None
    seeds: tuple[str, ...]
    run_ids: tuple[str, ...]
    majority: float | None
    overrides: str | None
    privacy: Privacy | None


def build_points(rows: Iterable[RunRow], population_of: Callable[[str], int | None] = lambda _: None) -> list[Point]:
    """Groups finished runs into points, in a fixed order.

    Of runs with the same configuration and seed, the latest audited one counts, or the latest if none was audited.
    Runs that did not finish, private runs without an epsilon, and runs with canaries in their data are left out.

    Args:
      rows: the runs.
      population_of: returns the public number of units of a private run by its id. Only the run's guarantee has it;
        called once for each point.
    """
    groups: dict[tuple[object, ...], dict[str, RunRow]] = defaultdict(dict)
    for row in sorted(rows, key=lambda row: (LOWER_BOUND in row.metrics, row.started)):
        if _usable(row):
            groups[_key(row)][_seed(row)] = row
    sorted_groups = ([group[seed] for seed in sorted(group, key=_by_number)] for group in groups.values())
    points = [_point(group, population_of) for group in sorted_groups]
    return sorted(points, key=in_order)


def in_order(point: Point) -> tuple[object, ...]:
    """Sorting key: data, pipeline, variant, then epsilon."""
    return (
        point.dataset, point.pipeline, point.variant, point.privacy.epsilon if point.privacy else 0.0, point.settings
    )  # fmt: skip


def t_interval(values: Sequence[float]) -> float | None:
    """Half-width of the two-sided 95 % Student interval of the mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    quantile = float(special.stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
    return quantile * float(np.std(values, ddof=1)) / math.sqrt(len(values))


def _usable(row: RunRow) -> bool:
    if "audit.canaries" in row.tags:  # its data has canaries, so its accuracy is not comparable
        return False
    if row.status != "FINISHED" or not math.isfinite(row.metrics.get("test/accuracy", math.nan)):
        return False
    return "privacy.unit" not in row.tags or math.isfinite(row.metrics.get("privacy/epsilon", math.nan))


def _key(row: RunRow) -> tuple[object, ...]:
    guarantee = tuple(
        row.tags.get(f"privacy.{name}") for name in ("unit", "relation", "delta", "accountant", "simulated")
    )
    strength = tuple(row.params.get(name) for name in STRENGTH) if _private(row) else None
    origin = (row.tags.get("data.sha256"), _pipeline(row), row.tags.get(VARIANT_TAG))
    return *origin, guarantee, strength, _settings(row)


def _private(row: RunRow) -> bool:
    return "privacy.unit" in row.tags


def _pipeline(row: RunRow) -> str:
    """The pipeline in today's names, so that runs of earlier versions can be compared."""
    return pipeline_of(row.tags.get("pipeline", "?"), row.tags.get("privacy.unit"))


def _settings(row: RunRow) -> tuple[tuple[str, str], ...]:
    """The parameters that shape the outcome, as `Config.effective` has it, in today's names."""
    ignored = ["tracking.", "audit."]
    ignored += [] if _private(row) else ["privacy."]
    ignored += [] if "partition.sha256" in row.tags else ["partition."]
    return tuple(
        (key, value)
        for key, value in sorted(renamed_params(row.params).items())
        if key not in IRRELEVANT and key not in STRENGTH and not key.startswith(tuple(ignored))
    )


def _seed(row: RunRow) -> str:
    return row.tags.get("seed") or row.params.get("seed", "")


def _by_number(seed: str) -> tuple[int, str]:
    return (int(seed), "") if seed.isdigit() else (-1, seed)


def _point(rows: list[RunRow], population_of: Callable[[str], int | None]) -> Point:
    """Joins the rows of one group, one for each seed."""
    first = rows[0]
    accuracies = [row.metrics["test/accuracy"] for row in rows]
    return Point(
        pipeline=_pipeline(first),
        dataset=first.tags.get("dataset", "?"),
        model=_model(first),
        variant=first.tags.get(VARIANT_TAG, ""),
        data_sha256=first.tags.get("data.sha256", ""),
        settings=_settings(first),
        accuracy=float(np.mean(accuracies)),
        interval=t_interval(accuracies),
        seeds=tuple(_seed(row) for row in rows),
        run_ids=tuple(row.run_id for row in rows),
        majority=first.metrics.get("test/majority"),
        overrides=_overrides(first.tags.get("overrides")),
        privacy=_privacy(rows, population_of(first.run_id)) if _private(first) else None,
    )


def _model(row: RunRow) -> str:
    name, features = row.tags.get("model", "?"), row.params.get("features.name", "none")
    return name if features == "none" else f"{name} on {features}"


def _overrides(logged: str | None) -> str | None:
    """The logged overrides without those of tracking, which do not matter for repeating the run."""
    if logged is None:
        return None
    return " ".join(word for word in OVERRIDE.split(logged) if not word.startswith("tracking."))


def _privacy(rows: list[RunRow], population: int | None) -> Privacy:
    tags, params = rows[0].tags, rows[0].params
    bounds = [row.metrics[LOWER_BOUND] for row in rows if LOWER_BOUND in row.metrics]
    return Privacy(
        epsilon=max(row.metrics["privacy/epsilon"] for row in rows),
        target=_number(params.get("privacy.epsilon")),
        delta=float(tags["privacy.delta"]),
        unit=tags["privacy.unit"],
        relation=tags["privacy.relation"],
        accountant=tags.get("privacy.accountant", "?"),
        noise_multiplier=_number(tags.get("privacy.noise_multiplier", params.get("privacy.noise_multiplier"))),
        simulated=tags.get("privacy.simulated") == "true",
        audited=min(bounds, default=None),
        population=population,
    )


def _number(text: str | None) -> float | None:
    return None if text in (None, "null", "") else float(text)
