"""Arranges points that may be compared: one panel per unit, one line per pipeline and kind of guarantee."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count

from pipelines.config.pipeline_table import ceilings, in_words, private_pipelines
from pipelines.core.errors import UserError
from pipelines.privacy.rounding import rounded_up
from pipelines.report.points import Point, Privacy
from pipelines.report.published_results import PublishedPoint, Reference

TITLES = {"example": "Example-level privacy", "user": "User-level privacy", None: "No private runs"}
PROMISES = {
    "example": "hides whether any one example was used",
    "user": "hides everything one user contributed",
    None: f"train with {in_words(private_pipelines())}",
}
RELATIONS = {"add_or_remove_one": "add or remove one", "zero_out_one": "zero out one"}


@dataclass(frozen=True, kw_only=True)
class Line:
    """Points with the same guarantee except for its epsilon, in order of epsilon.

    Raises:
      ValueError: the points do not share unit, relation, delta, accountant, data, pipeline and model.
    """

    label: str
    points: tuple[Point, ...]

    def __post_init__(self) -> None:
        kinds = {_kind(point) for point in self.points}
        if len(kinds) != 1 or any(point.privacy is None for point in self.points):
            raise ValueError(
                f"line {self.label!r} would join points that cannot be compared: {sorted(map(str, kinds))}"
            )
        if list(self.points) != sorted(self.points, key=_epsilon):
            raise ValueError(f"line {self.label!r}: points are not in order of epsilon")

    @property
    def pipeline(self) -> str:
        """The private pipeline."""
        return self.points[0].pipeline


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """A non-private point, drawn as a horizontal line."""

    label: str
    point: Point


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One privacy unit: example, user, or None where nothing is private.

    Attributes:
      lines: of this unit only.
      ceilings: accuracies without privacy.
      floors: for each dataset, the accuracy of its majority class.
      published: by others, about this unit and with a delta no larger than any here; each with its number.
      references: other methods without privacy, from the lowest accuracy.
    """

    unit: str | None
    lines: tuple[Line, ...]
    ceilings: tuple[Ceiling, ...]
    floors: tuple[tuple[str, float], ...]
    published: tuple[tuple[int, PublishedPoint], ...] = ()
    references: tuple[Reference, ...] = ()

    @property
    def title(self) -> str:
        """Heading."""
        return TITLES.get(self.unit, f"{self.unit}-level privacy")

    @property
    def promise(self) -> str:
        """What a guarantee in this panel hides."""
        return PROMISES.get(self.unit, "")


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """Everything that a table or a figure shows.

    Attributes:
      points: all of them.
      panels: example before user.
      caption: what all points share, in one line.
    """

    points: tuple[Point, ...]
    panels: tuple[Panel, ...]
    caption: str


def build_frontier(
    points: Sequence[Point], published: Sequence[PublishedPoint] = (), references: Sequence[Reference] = ()
) -> Frontier:
    """Arranges points into panels, and names each line by what sets it apart.

    Args:
      points: of our own runs.
      published: by others, on the same question.
      references: other methods without privacy, on the same data.

    Raises:
      UserError: there is no point.
    """
    if not points:
        raise UserError(
            "no finished runs with a test accuracy here; train first: python -m pipelines.run pipeline=dp_sgd"
        )
    varying = _varying(points)
    units: list[str | None] = [*sorted({p.privacy.unit for p in points if p.privacy is not None})]
    floors = tuple(sorted({(p.dataset, p.majority) for p in points if p.majority is not None}))
    numbers = count(1)
    panels = [
        Panel(
            unit=unit,
            lines=tuple(_lines([p for p in points if p.privacy is not None and p.privacy.unit == unit], varying)),
            ceilings=tuple(_ceilings(points, ceilings(unit), varying)),
            floors=floors,
            published=tuple((next(numbers), point) for point in _comparable(published, points, unit)),
            references=tuple(sorted((r for r in references if r.unit == unit), key=lambda r: r.accuracy)),
        )
        for unit in units or [None]
    ]
    return Frontier(points=tuple(points), panels=tuple(panels), caption=_caption(points))


def _comparable(published: Iterable[PublishedPoint], points: Iterable[Point], unit: str | None) -> list[PublishedPoint]:
    """Published points of a unit with a delta no larger than ours; a larger one would make their epsilon look small."""
    deltas = [point.privacy.delta for point in points if point.privacy is not None and point.privacy.unit == unit]
    return [point for point in published if deltas and point.unit == unit and point.delta <= 1.000001 * min(deltas)]


def _lines(points: Iterable[Point], varying: set[str]) -> list[Line]:
    """One line per kind. A kind with equal epsilons is split by its settings, since a line needs one y per x."""
    kinds: dict[tuple[object, ...], list[Point]] = defaultdict(list)
    for point in points:
        kinds[_kind(point)].append(point)
    lines = []
    for members in kinds.values():
        members.sort(key=_epsilon)
        label = _label(members[0], varying)
        if len({f"{_epsilon(point):.3g}" for point in members}) == len(members):
            lines.append(Line(label=label, points=tuple(members)))
            continue
        split: dict[tuple[tuple[str, str], ...], list[Point]] = defaultdict(list)
        for point in members:
            split[point.settings].append(point)
        for settings, part in split.items():
            lines.append(Line(label=_with_settings(label, settings, list(split)), points=tuple(part)))
    return lines


def _ceilings(points: Sequence[Point], pipelines: tuple[str, ...], varying: set[str]) -> list[Ceiling]:
    found = []
    for pipeline in pipelines:
        members = [p for p in points if p.privacy is None and p.pipeline == pipeline]
        for point in members:
            rivals = [p.settings for p in members if _kind(p) == _kind(point)]
            found.append(Ceiling(label=_with_settings(_label(point, varying), point.settings, rivals), point=point))
    return found


def _epsilon(point: Point) -> float:
    return 0.0 if point.privacy is None else point.privacy.epsilon


def _kind(point: Point) -> tuple[object, ...]:
    """The values that all points of a line share."""
    shared = (point.pipeline, point.variant, point.model, point.dataset, point.data_sha256)
    p = point.privacy
    return shared if p is None else (*shared, p.unit, p.relation, p.delta, p.accountant, p.simulated)


def _facts(point: Point) -> dict[str, str]:
    """The facts that a label or the caption may mention."""
    facts = {"dataset": point.dataset, "data": f"data {point.data_sha256[:6]}", "model": point.model}
    facts["variant"] = point.variant
    return facts if point.privacy is None else {**facts, **_privacy_facts(point.privacy)}


def _privacy_facts(privacy: Privacy) -> dict[str, str]:
    return {
        "delta": f"δ = {rounded_up(privacy.delta, 6)}",
        "relation": RELATIONS.get(privacy.relation, privacy.relation),
        "accountant": privacy.accountant,
        "simulated": "noise from a fixed seed" if privacy.simulated else "",
    }


def _varying(points: Sequence[Point]) -> set[str]:
    """Names of the facts in which points differ."""
    values: dict[str, set[str]] = defaultdict(set)
    for point in points:
        for name, value in _facts(point).items():
            values[name].add(value)
    varying = {name for name, found in values.items() if len(found) > 1}
    # Fingerprints are shown only if two datasets have the same name.
    return varying - {"data"} if "dataset" in varying else varying


def _label(point: Point, varying: set[str]) -> str:
    facts = _facts(point)
    return ", ".join([point.pipeline, *(facts[name] for name in facts if name in varying and facts[name])])


def _with_settings(
    label: str, settings: tuple[tuple[str, str], ...], rivals: Sequence[tuple[tuple[str, str], ...]]
) -> str:
    """Adds the settings in which lines with the same label differ."""
    mine = dict(settings)
    differing = [key for key in mine if len({dict(rival).get(key) for rival in rivals}) > 1]
    return ", ".join([label, *(f"{key.rpartition('.')[2]}={mine[key]}" for key in differing)])


def _caption(points: Sequence[Point]) -> str:
    varying = _varying(points)
    facts: dict[str, str] = {}
    for point in points:
        facts |= _facts(point)
    parts = [facts[name] for name in facts if name not in varying and name != "data" and facts[name]]
    counts = sorted({len(point.seeds) for point in points})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    bars = "bars: 95\u00a0% t-interval of the mean" if counts[-1] > 1 else "one seed: no interval"
    audited = any(point.privacy is not None and point.privacy.audited is not None for point in points)
    bands = ["bands: from the ε that an audit proved to the one claimed"] if audited else []
    return " · ".join([*parts, f"{seeds} seed{'s' if counts[-1] > 1 else ''}", bars, *bands])
