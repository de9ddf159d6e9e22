"""Commands that repeat points of the frontier."""

import shlex
from collections.abc import Sequence

from pipelines.report.points import OVERRIDE, Point


def commands(points: Sequence[Point]) -> list[str]:
    """The fewest commands that repeat these points with all their seeds, in the order of the points.

    Points that differ in a single setting share one command; other points have one each. Points without logged
    overrides have none.
    """
    told = [(point, _settings(point)) for point in points if point.overrides]
    keys = {key for _, settings in told for key in settings}
    differing = [key for key in keys if len({settings.get(key) for _, settings in told}) > 1]
    if len({point.seeds for point, _ in told}) > 1 or len(differing) > 1:
        return [_command(settings, point.seeds) for point, settings in told]
    if not told:
        return []
    (first, settings), *_ = told
    for key in differing:
        if any(key not in other for _, other in told):
            return [_command(settings, point.seeds) for point, settings in told]
        settings = settings | {key: ",".join(dict.fromkeys(other[key] for _, other in told))}
    return [_command(settings, first.seeds, several=bool(differing))]


def folded(command: str, width: int) -> list[str]:
    """Breaks a long command into several lines, where the shell allows it."""
    lines = [""]
    for word in map(shlex.quote, shlex.split(command)):
        if lines[-1].strip() and len(lines[-1]) + len(word) >= width - 2:
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return lines


def _settings(point: Point) -> dict[str, str]:
    """Key and value of each override except the seed, since a point has several.

    Privacy settings are left out if nothing is private: a single run refuses them; in a sweep they had no effect.
    """
    idle = ("privacy",) if point.privacy is None else ()
    pairs = (override.partition("=") for override in OVERRIDE.split(point.overrides or ""))
    return {key: value for key, _, value in pairs if key != "seed" and not key.startswith(idle)}


def _command(settings: dict[str, str], seeds: Sequence[str], *, several: bool = False) -> str:
    multirun = ["-m"] if several or len(seeds) > 1 else []
    words = [shlex.quote(f"{key}={value}") for key, value in settings.items()]
    return " ".join(["python -m pipelines.run", *multirun, *words, f"seed={','.join(seeds)}"])
