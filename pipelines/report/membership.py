"""The membership test of one run, as a figure."""

from textwrap import fill

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from pipelines.audit.membership import RATES, Roc, allowed
from pipelines.report.style import CENTRAL, FLOOR, INK

LOWEST = 1e-4
CAPTION = (
    "Computed from the raw training examples: this figure is not covered by any epsilon and must not be published with "
    "a private model."
)


def membership_figure(roc: Roc, *, label: str, claim: tuple[float, float] | None) -> Figure:
    """Draws true against false positives on logarithmic axes, and what a claim allows at most.

    Args:
      roc: training examples against test examples, by loss.
      label: of the run.
      claim: epsilon and delta where examples are protected; None elsewhere, as users' epsilons bound another test.
    """
    figure = Figure(figsize=(6.4, 6.2), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    rates = np.logspace(np.log10(LOWEST), 0, 400)
    axes.plot(rates, rates, color=FLOOR, linestyle=":", linewidth=1.4, label="guessing")
    if claim is not None:
        epsilon, delta = claim
        edge = allowed(rates, epsilon=epsilon, delta=delta)
        axes.fill_between(rates, LOWEST, edge, color=CENTRAL, alpha=0.12, linewidth=0)
        axes.plot(rates, edge, color=CENTRAL, linewidth=1, label=f"most that ε = {epsilon:.3g}, δ = {delta:g} allows")
    # As steps, which is what a threshold can reach; zero false positives show at the left edge.
    shown = np.maximum(roc.false_positive, LOWEST), np.maximum(roc.true_positive, LOWEST)
    axes.step(*shown, where="post", color=INK, linewidth=2, label=label)
    for rate in RATES.values():
        axes.axvline(rate, color="#dddddd", linewidth=0.8, zorder=0)
        axes.annotate(
            f"{100 * roc.true_positive_at(rate):.2g} %", (rate, max(roc.true_positive_at(rate), LOWEST)),
            xytext=(4, -12), textcoords="offset points", fontsize=9, color=INK,
        )  # fmt: skip
    # Below one test example's share nothing is known, and a step would seem to leave what the claim allows.
    left = min(roc.false_positive[roc.false_positive > 0].min(), *RATES.values())
    axes.set(xscale="log", yscale="log", xlim=(max(LOWEST, left), 1), ylim=(LOWEST, 1.05))
    axes.set_xlabel("test examples taken for training examples (false positives)")
    axes.set_ylabel("training examples recognised (true positives)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * rate:g} %"))
    axes.set_title("Who was in the training data?", loc="left", fontsize=12, fontweight="bold", color=INK)
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    figure.supxlabel(fill(CAPTION, 95), x=0.01, ha="left", fontsize=8, color=FLOOR)
    return figure
