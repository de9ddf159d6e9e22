"""The subjects and targets of the benchmark, one module for each section."""

from experiments.speed.chapters import around, central, federated, memory, scale
from experiments.speed.subject import SECTIONS, Chapter, Section


def chapter(section: Section) -> Chapter:
    """Returns a section's subjects and targets."""
    built = (federated.build, central.build, scale.build, memory.build, around.build)
    return dict(zip(SECTIONS, built, strict=True))[section]()
