"""Texts about published points and references in figures and tables."""

from pipelines.privacy.rounding import rounded_up
from pipelines.report.panels import Frontier
from pipelines.report.published_results import PublishedPoint, Reference
from pipelines.report.style import without_privacy

MARKS = {
    True: ("\u25c7", "published by others, at the ε that our accountant computes; a thin line comes from their own"),
    False: ("\u25a1", "published by others, at their own ε, which we cannot recompute"),
}
"""Mark and meaning of a point, by whether its epsilon is recomputed."""


def published_mark(point: PublishedPoint) -> str:
    """The mark of a point in tables and in the key: a hollow diamond or a hollow square."""
    return MARKS[point.epsilon_here is not None][0]


def published_key(frontier: Frontier) -> str:
    """The meaning of marks and numbers; empty if nothing is published."""
    points = [numbered for panel in frontier.panels for numbered in panel.published]
    if not points:
        return ""
    used = [f"{mark} {meaning}" for mark, meaning in MARKS.values() if mark in {published_mark(p) for _, p in points}]
    entries = [
        f"{number}\u00a0{point.label}: {100 * point.accuracy:.4g}\u00a0% at {epsilon_in_words(point)}"
        for number, point in points
    ]
    return f"Not our runs: {'; '.join(used)}. {'; '.join(entries)}."


def reference_label(reference: Reference) -> str:
    """The method and its accuracy."""
    return without_privacy(reference.label, reference.accuracy)


def epsilon_in_words(point: PublishedPoint) -> str:
    """Their epsilon by our accountant and as published; with several mechanisms, also that of training alone."""
    if point.epsilon_here is None:
        return f"ε\u00a0{rounded_up(point.epsilon, 6)} as published"
    alone = "" if point.epsilon_of_training is None else f", training alone {rounded_up(point.epsilon_of_training, 3)}"
    return f"ε\u00a0{rounded_up(point.epsilon_here, 3)} (published {rounded_up(point.epsilon, 6)}{alone})"
