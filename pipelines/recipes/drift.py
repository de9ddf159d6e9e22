"""Compares a new sweep with the record of an earlier one: guarantees must be equal, accuracies within their bands.

The guarantee and the length of a run follow from its configuration, so they must be equal. Accuracy may differ: the
noise of a private run is fresh entropy every time. The recorded spread s alone decides how far the mean of k new seeds
may lie from the mean of the n recorded ones. A new mean lies within

    t(n - 1, 1 - alpha / 2) * s * sqrt(1 / n + 1 / k)

of the recorded mean with probability 1 - alpha (the prediction interval of a mean; the 1/n is there because the
recorded mean is itself uncertain, Student's t because s is). With R rows, alpha = (1 - confidence) / R, so that all
rows together pass with at least that confidence when nothing has changed (Bonferroni). Two things make this
safer still. Seeds that are in both the record and the new sweep share partition and batch order, and a run without
privacy repeats its record exactly on the same machine. The band is never narrower than one test example, the
smallest possible change of an accuracy, since another floating-point unit may change one example.

Source: Hahn and Meeker 1991, Statistical Intervals, section 4.8.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import fill

import numpy as np
from scipy import special
from tabulate import tabulate

from pipelines.core.errors import UserError
from pipelines.privacy.rounding import rounded_up
from pipelines.recipes.recipe import Bands
from pipelines.recipes.record import ResultRow

TOLERANCE = 1e-6
EXACT = ("epsilon", "delta", "relation", "noise_multiplier", "steps")
Key = tuple[str, str, str, float]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The runs of one pipeline and variant that protect one unit at one target epsilon.

    Attributes:
      run: any of the runs; they differ in seed and accuracy only.
      seeds, accuracies: one for each run, in order of the seed.
    """

    run: ResultRow
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]

    @property
    def label(self) -> str:
        """Pipeline and variant."""
        return ", ".join(filter(None, (self.run.pipeline, self.run.variant)))

    @property
    def mean(self) -> float:
        """Mean accuracy."""
        return float(np.mean(self.accuracies))

    @property
    def spread(self) -> float:
        """Standard deviation over seeds; NaN for a single one."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else math.nan


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One row of the table.

    Attributes:
      recorded, now: the cell in the record and in the new sweep; None if it is missing.
      band: half-width around the recorded mean; None if there is nothing to compare.
      reason: for the width of the band.
      faults: values that drifted, in words; empty if none did.
    """

    recorded: Cell | None
    now: Cell | None
    band: float | None
    reason: str
    faults: tuple[str, ...]


def build_cells(rows: Iterable[ResultRow], where: str) -> dict[Key, Cell]:
    """Groups runs by pipeline, variant, unit and target epsilon, in that order.

    Raises:
      UserError: runs of a cell have the same seed, or differ in values that do not depend on it.
    """
    groups: dict[Key, list[ResultRow]] = defaultdict(list)
    for row in rows:
        groups[row.pipeline, row.variant or "", row.unit or "", row.target_epsilon or 0.0].append(row)
    return {key: _cell(groups[key], where) for key in sorted(groups)}


def _cell(rows: list[ResultRow], where: str) -> Cell:
    rows = sorted(rows, key=lambda row: row.seed)
    seeds = tuple(row.seed for row in rows)
    cell = Cell(run=rows[0], seeds=seeds, accuracies=tuple(row.accuracy for row in rows))
    name = f"{where}: {cell.label} at target epsilon {rows[0].target_epsilon or 'none'}"
    if len(set(seeds)) < len(seeds):
        raise UserError(f"{name} has a seed twice: {seeds}; parts of a recipe that differ in more need a variant")
    for row in rows:
        if differing := [field for field in EXACT if not equal(getattr(rows[0], field), getattr(row, field))]:
            raise UserError(f"{name}: seeds {seeds[0]} and {row.seed} differ in {', '.join(differing)}")
    return cell


def equal(recorded: object, now: object) -> bool:
    """Equality, with a tolerance of 1e-6 for numbers, which is relative for numbers below 1."""
    if isinstance(recorded, int | float) and isinstance(now, int | float):
        return abs(recorded - now) <= TOLERANCE * min(1.0, abs(recorded))
    return recorded == now


def prediction_band(recorded: Sequence[float], *, count: int, confidence: float) -> float:
    """Half-width of the interval around the recorded mean that holds the mean of `count` new values.

    Args:
      recorded: at least two values.
      count: of the new values, >= 1.
      confidence: probability of the interval, in (0, 1).

    Raises:
      ValueError: fewer than two values have no spread.
    """
    known = len(recorded)
    if known < 2:
        raise ValueError(f"a band needs at least two recorded values; got {known}")
    quantile = float(special.stdtrit(known - 1, (1 + confidence) / 2))
    return quantile * float(np.std(recorded, ddof=1)) * math.sqrt(1 / known + 1 / count)


def compare(recorded: dict[Key, Cell], now: dict[Key, Cell], bands: Bands) -> list[Comparison]:
    """Compares cell by cell. A recorded cell without new runs has drifted, and so has a new cell without a record.

    Raises:
      UserError: a recorded cell has a single seed.
    """
    keys = [*recorded, *(key for key in now if key not in recorded)]
    confidence = 1 - (1 - bands.confidence) / len(keys)
    return [_compare(recorded.get(key), now.get(key), confidence, 1 / bands.test_examples) for key in keys]


def _compare(recorded: Cell | None, now: Cell | None, confidence: float, floor: float) -> Comparison:
    if recorded is None or now is None:
        fault = "not in the record" if recorded is None else "did not run"
        return Comparison(recorded=recorded, now=now, band=None, reason="", faults=(fault,))
    if len(recorded.seeds) < 2:
        raise UserError(f"the record has one seed of {recorded.label}; a band needs at least two: use --record")
    band = prediction_band(recorded.accuracies, count=len(now.seeds), confidence=confidence)
    reason = f"spread {100 * recorded.spread:.2f} of {len(recorded.seeds)} seeds"
    if band < floor:
        band, reason = floor, "one test example"
    faults = [field for field in EXACT if not equal(getattr(recorded.run, field), getattr(now.run, field))]
    # Sums of accuracies are rounded, so a difference of exactly one example may look slightly larger.
    if abs(now.mean - recorded.mean) > band + 1e-9:
        faults.append("accuracy")
    return Comparison(recorded=recorded, now=now, band=band, reason=reason, faults=tuple(faults))


def drift_table(comparisons: Sequence[Comparison]) -> str:
    """Renders recorded and new values with the reason for each band; equal values are written once."""
    return tabulate(
        [_line(comparison) for comparison in comparisons],
        headers=["", "target", "epsilon", "sigma", "steps", "recorded", "now", "band", "because of", ""],
        tablefmt="simple",
        colalign=("left", "right", "right", "right", "right", "right", "right", "right", "left", "left"),
        disable_numparse=True,
    )


def bands_in_words(rows: int, bands: Bands) -> str:
    """Explains the width of the bands of a table."""
    return fill(
        "A band is t * spread * sqrt(1/recorded + 1/new seeds). New seeds of an unchanged program stay in all "
        f"{rows} bands together with a probability of {100 * bands.confidence:g} %, as far as the recorded seeds can "
        f"tell. A band is never narrower than one test example, {100 / bands.test_examples:.2g} points.",
        100,
    )


def _line(row: Comparison) -> list[str]:
    cell = row.recorded or row.now
    assert cell is not None, "a comparison has at least one side"
    target = cell.run.target_epsilon
    return [
        cell.label,
        "" if target is None else f"{target:g}",
        _pair(row, "epsilon", "none"),
        _pair(row, "noise_multiplier", ""),
        _pair(row, "steps", ""),
        _mean(row.recorded),
        _mean(row.now),
        "" if row.band is None else f"± {100 * row.band:.2f}",
        row.reason,
        f"DRIFTED: {', '.join(row.faults)}" if row.faults else "ok",
    ]


def _pair(row: Comparison, field: str, absent: str) -> str:
    """One value, or recorded -> now if they differ."""
    texts = []
    for cell in (row.recorded, row.now):
        value = None if cell is None else getattr(cell.run, field)
        texts.append(absent if value is None else rounded_up(value, 8) if isinstance(value, float) else str(value))
    return f"{texts[0]} -> {texts[1]}" if field in row.faults else texts[0] if row.recorded else texts[1]


def _mean(cell: Cell | None) -> str:
    return "" if cell is None else f"{100 * cell.mean:.2f} % of {len(cell.seeds)}"
