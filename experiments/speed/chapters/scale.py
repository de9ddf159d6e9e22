"""The cost of a federated round: it grows with the cohort, and does not grow with the population."""

from typing import Any

from experiments.speed.chapters.federated import OURS, PROBE
from experiments.speed.subject import Chapter, Subject, Target

COHORTS = {10: 60, 100: 25, 1000: 8}
POPULATIONS = (1_000, 10_000, 100_000)


def build() -> Chapter:
    """Cohorts of 10 to 1,000 and populations of 1,000 to 100,000."""
    return Chapter(
        section="scale",
        work="fed_avg as above. Cohorts are drawn from the 1,000 clients that share out MNIST's 60,000 images. "
        "Populations have 60 images a client, drawn with replacement from the same 60,000, so that clients overlap: "
        "the work of a round is the same, only the index arrays grow. Python before is its memory with data and "
        "partition loaded, before training.",
        subjects=(*_cohorts(), *_populations()),
        targets=_targets(),
        columns={
            "examples_per_s": "examples/s", "round_s": "s a round", "first_s": "first round, s",
            "before_mb": "Python before, MB", "python_mb": "Python after, MB", "worker_mb": "worker, MB",
        },
    )  # fmt: skip


def _cohorts() -> tuple[Subject, ...]:
    return tuple(
        _subject(f"cohort_{size}", f"{size:,} of 1,000 clients", {"cohort": size, "rounds": rounds, "warm": 3}, 5)
        for size, rounds in COHORTS.items()
    )


def _populations() -> tuple[Subject, ...]:
    return tuple(
        _subject(f"population_{size}", f"50 of {size:,} clients", {"population": size, "rounds": 30}, 10)
        for size in POPULATIONS
    )


def _subject(name: str, label: str, changes: dict[str, Any], quick_rounds: int) -> Subject:
    quick = {"rounds": quick_rounds, "warm": 2}
    return Subject(name=name, label=label, program=PROBE, options=OURS | changes, quick=quick)


def _targets() -> tuple[Target, ...]:
    def grown(claim: str, subject: str, reference: str, metric: str, bound: float) -> Target:
        return Target(claim=claim, subject=(subject,), reference=(reference,), metric=metric, bound=bound)

    # Bounds for "linear" and "flat" allow a tenth more, for noise of the machine.
    return (
        grown("round of 1,000 clients over one of 100", "cohort_1000", "cohort_100", "round_s", 11.0),
        grown("round with a population of 100,000 over one of 1,000", "population_100000", "population_1000",
              "round_s", 1.1),
        grown("Python's memory with a population of 100,000 over 1,000", "population_100000", "population_1000",
              "python_mb", 1.1),
        grown("the worker's memory with a population of 100,000 over 1,000", "population_100000", "population_1000",
              "worker_mb", 1.1),
    )  # fmt: skip
