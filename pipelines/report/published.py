"""What figures and tables say of published points and of references."""

from pipelines.published import PublishedPoint, Reference
from pipelines.report.panels import Frontier
from pipelines.report.style import without_privacy


def published_key(frontier: Frontier) -> str:
    """What the numbers stand for; empty where nothing is published."""
    entries = [
        f"{number}\u00a0{point.label}: {100 * point.accuracy:.4g}\u00a0% at {epsilon_in_words(point)}"
        for panel in frontier.panels
        for number, point in panel.published
    ]
    if not entries:
        return ""
    return f"\u25c7 published by others, not our runs; a thin line comes from their own ε. {'; '.join(entries)}."


def reference_label(reference: Reference) -> str:
    """The method and its accuracy."""
    return without_privacy(reference.label, reference.accuracy)


def epsilon_in_words(point: PublishedPoint) -> str:
    """Their epsilon as our runs are accounted and as published; of several mechanisms, also that of the training."""
    if point.epsilon_here is None:
        return f"ε\u00a0{point.epsilon:g} as published"
    alone = "" if point.epsilon_of_training is None else f", training alone {point.epsilon_of_training:.2f}"
    return f"ε\u00a0{point.epsilon_here:.2f} (published {point.epsilon:g}{alone})"
