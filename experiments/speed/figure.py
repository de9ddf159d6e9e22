"""The benchmark as bars: examples per second of our engines, the peers and the bound."""

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from experiments.speed.chapters import chapter
from experiments.speed.results import Record, Records, Spread
from experiments.speed.subject import Section, Subject
from experiments.speed.table import number
from pipelines.report.style import CENTRAL, FEDERATED, FLOOR, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS: dict[Section, tuple[str, str, tuple[str, ...]]] = {
    "federated": (
        "A federated round",
        FEDERATED,
        ("fed_avg", "dp_poisson", "fed_avg_stock", "tf_graph", "torch_clients", "pfl", "tff_iterator",
         "tff_functional", "tff_keras", "flower"),
    ),
    "central": (
        "A step of 512",
        CENTRAL,
        ("sgd", "dp_sgd_auto", "dp_sgd_torch", "dp_sgd_ghost", "dp_sgd_hooks", "dp_sgd_functorch", "torch_indexed",
         "torch_loader", "opacus"),
    ),
}  # fmt: skip
METRIC = "examples_per_s"
INCHES_A_BAR = 0.36
BOUND_HATCH = "///"


def speed_figure(records: Records) -> Figure:
    """Draws one panel for each engine that was measured; bars are sorted by rate, ours in the engine's colour."""
    sections = [section for section in PANELS if section in records]
    most = max((len(PANELS[section][2]) for section in sections), default=1)
    figure = Figure(figsize=(7.2 * max(1, len(sections)), 1.8 + INCHES_A_BAR * most), dpi=150, layout="constrained")
    for position, section in enumerate(sections):
        _draw(figure.add_subplot(1, len(sections), position + 1), section, records[section])
    figure.suptitle("How fast", x=0.01, ha="left", fontsize=15, fontweight="bold", color=INK)
    if sections:
        machine = records[sections[0]].origin.machine
        caption = (
            f"Medians, whiskers from the least to the greatest repeat; {machine['cpu']}, {machine['cores']} cores."
        )
        figure.supxlabel(caption, x=0.01, ha="left", fontsize=9, color=FLOOR)
    return figure


def _draw(axes: "Axes", section: Section, record: Record) -> None:
    title, colour, names = PANELS[section]
    subjects = {subject.name: subject for subject in chapter(section).subjects}
    bars = [(subjects[name], Spread.of(record.values(name, METRIC))) for name in names if record.values(name, METRIC)]
    bars.sort(key=lambda bar: bar[1].middle)
    for place, (subject, spread) in enumerate(bars):
        _bar(axes, place, subject, spread, colour)
    axes.set_yticks(range(len(bars)), [subject.label for subject, _ in bars])
    for tick, (subject, _) in zip(axes.get_yticklabels(), bars, strict=True):
        tick.set_fontweight("bold" if subject.kind == "ours" else "normal")
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK)
    axes.set_xlabel("examples a second")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.margins(x=0.14)
    axes.set_xlim(left=0)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _bar(axes: "Axes", place: int, subject: Subject, spread: Spread, colour: str) -> None:
    fill = {"ours": colour, "peer": "#b8b8b8", "bound": "white"}[subject.kind]
    axes.barh(
        place, spread.middle, height=0.68, color=fill, edgecolor=FLOOR if subject.kind == "bound" else fill,
        hatch=BOUND_HATCH if subject.kind == "bound" else None,
        xerr=[[spread.middle - spread.low], [spread.high - spread.middle]],
        error_kw={"elinewidth": 1.2, "capsize": 3, "ecolor": INK},
    )  # fmt: skip
    axes.annotate(
        number(spread.middle), (spread.high, place), xytext=(6, 0), textcoords="offset points", va="center",
        fontsize=9, color=INK,
    )  # fmt: skip
