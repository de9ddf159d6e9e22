"""The membership test as a figure of one run, and as a figure and a table of a sweep."""

import csv
from collections import defaultdict
from collections.abc import Sequence
from io import StringIO
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from tabulate import tabulate

from pipelines.auditing.finding import RATES, Membership, percent
from pipelines.auditing.membership import Roc, allowed
from pipelines.privacy.rounding import rounded_up
from pipelines.report.drawing import blank
from pipelines.report.style import CENTRAL, FEDERATED, FLOOR, INK, MORE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOWEST = 1e-4
MOST_ROWS = 10
"""Largest number of rows in the terminal's table, and of names in the legend of a sweep."""
CAPTION = (
    "Computed from the raw training examples: this figure is not covered by any epsilon and must not be published with "
    "a private model."
)
PRIVATE_COLOURS = (CENTRAL, FEDERATED, *MORE)
Found = tuple[Membership, Roc]


def membership_figure(roc: Roc, found: Membership) -> Figure:
    """Draws true against false positives on logarithmic axes, and the most that a claim allows.

    Args:
      roc: training examples against test examples, by loss.
      found: of the run; its claim is drawn if examples are protected.
    """
    figure, axes = _dressed()
    if found.claim is not None:
        epsilon, delta = found.claim
        rates = np.logspace(np.log10(LOWEST), 0, 400)
        edge = allowed(rates, epsilon=epsilon, delta=delta)
        axes.fill_between(rates, LOWEST, edge, color=CENTRAL, alpha=0.12, linewidth=0)
        claim = f"ε = {rounded_up(epsilon)}, δ = {rounded_up(delta, 6)}"
        axes.plot(rates, edge, color=CENTRAL, linewidth=1, label=f"most that {claim} allows")
    _draw(axes, roc, color=INK, linewidth=2, label=f"{found.label}, seed {found.seed}")
    for name, rate in RATES.items():
        if (true := found.true_positive[name]) is not None:
            axes.annotate(
                percent(true), (rate, max(true, LOWEST)), xytext=(4, -12), textcoords="offset points", fontsize=9,
                color=INK,
            )  # fmt: skip
    return _finished(figure, axes, [roc])


def sweep_figure(runs: Sequence[Found]) -> Figure:
    """Draws all runs of a sweep on the same axes: runs without privacy dashed, private runs in colours by epsilon.

    Runs with the same label share a colour and an entry of the legend.

    Args:
      runs: at least one.
    """
    groups: dict[str, list[Found]] = defaultdict(list)
    for found, roc in sorted(runs, key=lambda run: (run[0].epsilon is not None, run[0].epsilon or 0, run[0].seed)):
        groups[found.label].append((found, roc))
    figure, axes = _dressed()
    private = [label for label, members in groups.items() if members[0][0].epsilon is not None]
    plain = [label for label in groups if label not in private]
    for label, members in groups.items():
        runs_of_it = f" ({len(members)} runs)" if len(members) > 1 else ""
        for position, (_, roc) in enumerate(members):
            first = position == 0 and list(groups).index(label) < MOST_ROWS
            named = fill(label + runs_of_it, 60) if first else None
            if label in plain:
                colour = (INK, FLOOR)[plain.index(label) % 2]
                _draw(axes, roc, color=colour, linewidth=1.8, linestyle=(0, (5, 2)), label=named)
            else:
                colour = PRIVATE_COLOURS[private.index(label) % len(PRIVATE_COLOURS)]
                _draw(axes, roc, color=colour, linewidth=1.6, label=named)
    return _finished(figure, axes, [roc for _, roc in runs])


def _dressed() -> "tuple[Figure, Axes]":
    figure = blank(6.4, 6.2, dpi=130)
    axes = figure.add_subplot()
    axes.plot([LOWEST, 1], [LOWEST, 1], color=FLOOR, linestyle=":", linewidth=1.4, label="guessing")
    for rate in RATES.values():
        axes.axvline(rate, color="#dddddd", linewidth=0.8, zorder=0)
    axes.set_title("Who was in the training data?", loc="left", fontsize=12, fontweight="bold", color=INK)
    axes.set_xlabel("test examples taken for training examples (false positives)")
    axes.set_ylabel("training examples recognised (true positives)")
    return figure, axes


def _draw(axes: "Axes", roc: Roc, **style: object) -> None:
    """Draws steps, because thresholds reach only these points; zero false positives are at the left edge."""
    shown = np.maximum(roc.false_positive, LOWEST), np.maximum(roc.true_positive, LOWEST)
    axes.step(*shown, where="post", **style)  # type: ignore[arg-type]


def _finished(figure: Figure, axes: "Axes", curves: Sequence[Roc]) -> Figure:
    # Rates below the share of one test example are not measured; a step there would seem to exceed the claim's limit.
    least = min(float(roc.false_positive[roc.false_positive > 0].min()) for roc in curves)
    left = min(least, *RATES.values())
    axes.set(xscale="log", yscale="log", xlim=(max(LOWEST, left), 1), ylim=(LOWEST, 1.05))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * rate:g} %"))
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    figure.supxlabel(fill(CAPTION, 95), x=0.01, ha="left", fontsize=8, color=FLOOR)
    return figure


HEADERS = (
    "pipeline",
    "model",
    "dataset",
    "unit",
    "epsilon",
    "seed",
    *(f"TPR at {percent(rate)} FPR" for rate in RATES.values()),
)


def _row(found: Membership) -> tuple[str, ...]:
    epsilon = "none" if found.epsilon is None else rounded_up(found.epsilon)
    known = (found.true_positive[name] for name in RATES)
    rates = ("too few examples" if rate is None else f"{100 * rate:.2f} %" for rate in known)
    return found.pipeline, found.model, found.dataset, found.unit or "", epsilon, str(found.seed), *rates


def membership_table(runs: Sequence[Membership]) -> str:
    """Renders true positive rates for the terminal, one row per run; of many runs only those with the highest rates."""
    shown = list(runs)
    if len(runs) > MOST_ROWS:
        shown = sorted(runs, key=lambda found: -max(rate or 0 for rate in found.true_positive.values()))[:MOST_ROWS]
    table = tabulate([_row(found) for found in shown], headers=HEADERS, tablefmt="simple", disable_numparse=True)
    rest = len(runs) - len(shown)
    return f"{table}\n({rest} with lower rates: membership/membership.csv)" if rest else table


def membership_csv(runs: Sequence[Membership]) -> str:
    """Renders the same as CSV, rates in [0, 1]."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = (f"tpr_at_{name}_fpr" for name in RATES)
    writer.writerow(["pipeline", "model", "dataset", "unit", "epsilon", "delta", "seed", *names])
    for found in runs:
        rates = (found.true_positive[name] for name in RATES)
        run = (found.pipeline, found.model, found.dataset, found.unit, found.epsilon, found.delta, found.seed)
        writer.writerow([*run, *rates])
    return out.getvalue()
