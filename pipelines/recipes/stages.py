"""The stages of a waterfall, and the cost of each step with its interval.

The cost of a step is the difference of two means. If both stages have the same seeds, they have the same division among
users. The cost is then the mean of the differences seed by seed, with Student's interval of that mean. Otherwise the
interval is Welch's, which assumes neither the same spread nor the same number of seeds.

Source: Welch 1947, doi:10.1093/biomet/34.1-2.28, with the degrees of freedom of Satterthwaite 1946,
doi:10.2307/3002019.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from scipy import special
from tabulate import tabulate

from pipelines.core.errors import UserError
from pipelines.privacy.rounding import rounded_up
from pipelines.recipes.drift import Cell, Key
from pipelines.recipes.recipe import Stage
from pipelines.report.points import CONFIDENCE, t_interval

HUGE = 1000.0
"""Of epsilons beyond this, only the magnitude is shown."""
Method = Literal["paired", "Welch"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """From one stage to the next.

    Attributes:
      change: of the mean accuracy; negative if accuracy is lost.
      interval: half-width of its 95 % interval; None if a stage has a single seed.
      method: of the interval: over pairs of runs with the same seed, or Welch's.
    """

    change: float
    interval: float | None
    method: Method


@dataclass(frozen=True, kw_only=True)
class Waterfall:
    """One panel of a waterfall.

    Attributes:
      title: of the panel.
      stages: from the best to the last; at least two.
      cells: the runs of each stage.
      steps: between neighbouring stages; one fewer than the stages.
    """

    title: str
    stages: tuple[Stage, ...]
    cells: tuple[Cell, ...]
    steps: tuple[Step, ...]


def build_waterfall(panels: Mapping[str, Sequence[Stage]], cells: Mapping[Key, Cell]) -> list[Waterfall]:
    """Finds the runs of every stage.

    Args:
      panels: stages by the panel's title, as in `Recipe.waterfall`.
      cells: of a record or of a sweep.

    Raises:
      UserError: a stage does not match exactly one cell.
    """
    waterfalls = []
    for title, stages in panels.items():
        found = [_cell(title, stage, cells) for stage in stages]
        steps = tuple(step_between(before, after) for before, after in pairwise(found))
        waterfalls.append(Waterfall(title=title, stages=tuple(stages), cells=tuple(found), steps=steps))
    return waterfalls


def _cell(title: str, stage: Stage, cells: Mapping[Key, Cell]) -> Cell:
    wanted = (stage.pipeline, stage.variant, stage.epsilon)
    found = [
        cell for cell in cells.values() if (cell.run.pipeline, cell.run.variant, cell.run.target_epsilon) == wanted
    ]
    if len(found) != 1:
        rows = "; ".join(f"{cell.label}, {cell.run.target_epsilon or 'no target epsilon'}" for cell in cells.values())
        raise UserError(
            f"waterfall, {title}: stage {stage.label!r} ({stage.row}) is {len(found) or 'none'} of the rows: {rows}; "
            "set pipeline, variant and epsilon to those of one"
        )
    return found[0]


def step_between(before: Cell, after: Cell) -> Step:
    """The cost of the step from one stage to the next."""
    change = after.mean - before.mean
    if before.seeds == after.seeds:  # in order of the seed
        differences = np.subtract(after.accuracies, before.accuracies)
        return Step(change=change, interval=t_interval(differences.tolist()), method="paired")
    return Step(change=change, interval=_welch(before, after), method="Welch")


def _welch(before: Cell, after: Cell) -> float | None:
    """Half-width of Welch's 95 % interval of the difference of two means; None if a stage has a single seed."""
    counts = [len(cell.seeds) for cell in (before, after)]
    if min(counts) < 2:
        return None
    shares = [cell.spread**2 / count for cell, count in zip((before, after), counts, strict=True)]
    if not any(shares):
        return 0.0
    freedom = sum(shares) ** 2 / sum(share**2 / (n - 1) for share, n in zip(shares, counts, strict=True))
    return float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(sum(shares))


def waterfall_table(waterfalls: Sequence[Waterfall]) -> str:
    """Renders every stage with its cost in points of accuracy."""
    lines = []
    for waterfall in waterfalls:
        for stage, cell, step in zip(waterfall.stages, waterfall.cells, (None, *waterfall.steps), strict=True):
            cost = ["", ""] if step is None else [change_text(step), step.method]
            epsilon = "none" if cell.run.epsilon is None else epsilon_text(cell.run.epsilon)
            lines.append([waterfall.title, stage.label, epsilon, f"{100 * cell.mean:.2f} %", *cost, len(cell.seeds)])
    headers = ["", "stage", "epsilon", "accuracy", "change in points, 95 % interval", "interval", "seeds"]
    return tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True)


def epsilon_text(epsilon: float) -> str:
    """An epsilon with three significant digits, or its magnitude if it is too large to be useful."""
    if epsilon < HUGE:
        return rounded_up(epsilon, 3)
    return f"up to {rounded_up(epsilon, 1)}".replace("e+0", "e")


def change_text(step: Step) -> str:
    """Change and interval in points, with a true minus."""
    interval = "" if step.interval is None else f" ± {100 * step.interval:.2f}"
    return f"{100 * step.change:+.2f}{interval}".replace("-", "\u2212")
