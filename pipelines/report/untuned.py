"""Finds private runs that are better than the same pipeline without privacy, whose settings are then badly tuned."""

from collections.abc import Iterator

from pipelines.config.pipeline_table import PIPELINES
from pipelines.privacy.rounding import rounded_up
from pipelines.report.panels import Frontier, Panel
from pipelines.report.points import Point


def untuned_ceilings(frontier: Frontier) -> str:
    """Returns one line about the private point that exceeds its ceiling most; empty if none does."""
    found = [pair for panel in frontier.panels for pair in _above(panel)]
    if not found:
        return ""
    point, ceiling = max(found, key=lambda pair: pair[0].accuracy - pair[1].accuracy)
    assert point.privacy is not None, "a line holds private points only"
    more = f", the largest of {len(found)} such excesses" if len(found) > 1 else ""
    return (
        f"{point.pipeline} at epsilon {rounded_up(point.privacy.epsilon)} ({100 * point.accuracy:.2f} %) exceeds its "
        f"ceiling without privacy, {ceiling.pipeline} ({100 * ceiling.accuracy:.2f} %){more}: the ceiling is not "
        "tuned, so the cost of privacy shown is too low"
    )


def _above(panel: Panel) -> Iterator[tuple[Point, Point]]:
    for point in (point for line in panel.lines for point in line.points):
        rivals = [ceiling.point for ceiling in panel.ceilings if _is_ceiling(ceiling.point, point)]
        best = max(rivals, key=lambda rival: rival.accuracy, default=None)
        if best is not None and point.accuracy > best.accuracy:
            yield point, best


def _is_ceiling(ceiling: Point, point: Point) -> bool:
    """Whether a point is without privacy, with the data, model, variant and non-private pipeline of a private point."""
    same = ("data_sha256", "model", "variant")
    row = PIPELINES.get(point.pipeline)
    return (
        row is not None
        and ceiling.pipeline == row.ceiling
        and all(getattr(ceiling, name) == getattr(point, name) for name in same)
    )
