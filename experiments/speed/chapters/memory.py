"""Memory: over many rounds, with an outsized client, and of private training compared with plain training."""

from typing import Any

from experiments.speed.chapters import central
from experiments.speed.chapters.federated import OURS, PROBE
from experiments.speed.subject import Chapter, Subject, Target

LONG: dict[str, Any] = {"rounds": 1000, "memory_every": 10}
FIFTY: dict[str, Any] = {"rounds": 15, "population": 50}
LARGE: dict[str, Any] = {"model": "cnn", "batch": 4096, "warm": 1, "steps": 6}


def build() -> Chapter:
    """The resident memory that the operating system counts."""
    return Chapter(
        section="memory",
        work="Long runs: 1,000 rounds of 50 of 1,000 clients; growth compares the end with the state after 200 rounds. "
        "Outsized: of 50 clients one has 6,000 images and the others 60; the bound on its time is that client alone, "
        "whose steps follow one from another. Peak is Python's and the worker's together. Batch of 4,096: peak during "
        "training less what was resident before it.",
        subjects=(*_long(), *_outsized(), *_batch()),
        targets=_targets(),
        columns={
            "round_s": "s a round", "first_s": "first, s", "python_mb": "Python, MB", "worker_mb": "worker, MB",
            "python_mb_per_1000": "Python, MB in 1,000 rounds", "worker_mb_per_1000": "worker, MB in 1,000 rounds",
            "peak_mb": "peak, MB", "peak_net_mb": "peak of training, MB",
        },
    )  # fmt: skip


def _long() -> tuple[Subject, ...]:
    return tuple(
        Subject(
            name=f"long_{pipeline}", label=f"{pipeline}, 1,000 rounds", program=PROBE, repeats=1,
            options=OURS | LONG | {"pipeline": pipeline}, quick={"rounds": 60, "memory_every": 2},
        )
        for pipeline in ("fed_avg", "dp_fed_avg")
    )  # fmt: skip


def _outsized() -> tuple[Subject, ...]:
    alone = {"population": 1, "cohort": 1, "outsized": 6000, "size": 60}
    cases: dict[str, tuple[str, dict[str, Any]]] = {
        "even": ("50 clients of 60", {}),
        "outsized": ("49 clients of 60, one of 6,000", {"outsized": 6000}),
        "outsized_alone": ("one client of 6,000", alone),
    }
    return tuple(
        Subject(name=name, label=label, program=PROBE, options=OURS | FIFTY | changes, quick={"rounds": 8}, repeats=2)
        for name, (label, changes) in cases.items()
    )


def _batch() -> tuple[Subject, ...]:
    def large(name: str, label: str, **options: Any) -> Subject:
        return Subject(name=name, label=label, program=central.PROBE, options=LARGE | options, repeats=2)

    return (
        large("sgd_4096", "sgd, batch of 4,096", pipeline="sgd"),
        large("dp_sgd_4096", "dp_sgd, batch of 4,096", pipeline="dp_sgd", grad_sample="auto"),
    )


def _targets() -> tuple[Target, ...]:
    def flat(pipeline: str, process: str) -> Target:
        return Target(
            claim=f"{process} after 1,000 rounds of {pipeline} over 200", subject=(f"long_{pipeline}",),
            metric=f"{process.lower()}_growth", bound=1.05,
        )  # fmt: skip

    return (
        *(flat(pipeline, process) for pipeline in ("fed_avg", "dp_fed_avg") for process in ("Python", "Worker")),
        Target(
            claim="peak memory with an outsized client over without",
            subject=("outsized",), reference=("even",), metric="peak_mb", bound=1.25,
        ),
        Target(
            claim="its round over that client alone",
            subject=("outsized",), reference=("outsized_alone",), metric="round_s", bound=None,
        ),
        Target(
            claim="peak of training at batch 4,096, dp_sgd over sgd",
            subject=("dp_sgd_4096",), reference=("sgd_4096",), metric="peak_net_mb", bound=1.5,
        ),
        Target(
            claim="the same for the whole process",
            subject=("dp_sgd_4096",), reference=("sgd_4096",), metric="peak_mb", bound=1.5,
        ),
    )  # fmt: skip
