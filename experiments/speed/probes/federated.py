"""Rounds of `fed_avg` or `dp_fed_avg` through their public objects: time, and memory of Python and of TFF's worker."""

from typing import Any

import numpy as np

from experiments.speed.probes import problem
from experiments.speed.probes.process import Stopwatch, peak_mb, read_options, report, resident_mb, worker_pid
from pipelines.engines.interface import Fit, OnRound, TrainingData
from pipelines.privacy.mechanisms.base import PrivacyUnit

SETTLED = 0.2
"""Share of a long run after which its memory should no longer grow."""
LONG = 20
"""Fewest readings of the memory from which growth is computed."""


def main() -> None:
    """Measures one configuration."""
    options = read_options()
    data = problem.mnist(options["data"], _partition(options))
    memory: list[tuple[int, float, float]] = []

    def look(step: int) -> None:
        if step % options["memory_every"] == 0:
            memory.append((step, resident_mb(), resident_mb(worker_pid())))

    before, watch = resident_mb(), Stopwatch(look)
    fit = _fit(options, data, watch)
    worker = worker_pid()
    metrics = _rates(options, watch.seconds) | {
        "python_mb": resident_mb(), "worker_mb": resident_mb(worker), "peak_mb": peak_mb() + peak_mb(worker),
        "before_mb": before,
    }  # fmt: skip
    if len(memory) >= LONG:
        metrics |= _growth(memory)
    report(metrics, fit.facts)


def _partition(options: dict[str, Any]) -> Any:
    """The population; None is the archive's own, a thousand disjoint clients."""
    if "population" not in options:
        return None
    return problem.population(options["population"], options.get("size", 60), options.get("outsized", 0))


def _fit(options: dict[str, Any], data: TrainingData, on_round: OnRound) -> Fit:
    settings: Any = problem.federated_settings(options)
    threads = options["threads"]
    if options["pipeline"] == "dp_fed_avg":
        from pipelines.engines.federated.dp_fed_avg import DpFedAvg

        assert data.partition is not None
        plan = problem.plan(PrivacyUnit.USER, len(data.partition), options["cohort"], options["rounds"])
        return DpFedAvg(settings, plan, noise_seed=None, threads=threads).fit(data, on_round)
    from pipelines.engines.federated.fed_avg import FedAvg

    return FedAvg(settings, seed=0, threads=threads).fit(data, on_round)


def _rates(options: dict[str, Any], seconds: list[float]) -> dict[str, float]:
    """Seconds per round and examples per second, after the first rounds.

    The size of a Poisson cohort varies and is private. Its rate is therefore that of many rounds together, for the
    expected number of examples. The rate of an exact cohort is that of the median round.
    """
    steady = seconds[options["warm"] :]
    varies = options["pipeline"] == "dp_fed_avg" and options["cohort"] < options.get("population", 1000)
    typical = float(np.mean(steady) if varies else np.median(steady))
    outsized = options.get("outsized", 0)
    examples = options["cohort"] * options.get("size", 60) + (outsized - options.get("size", 60) if outsized else 0)
    return {"examples_per_s": examples / typical, "round_s": typical, "first_s": seconds[0]}


def _growth(memory: list[tuple[int, float, float]]) -> dict[str, float]:
    """Ratio of the memory at the end of a long run to the settled memory, and the slope in between."""
    steps, python, worker = (np.array(column) for column in zip(*memory, strict=True))
    late = steps >= SETTLED * steps[-1]
    found = {}
    for name, values in (("python", python[late]), ("worker", worker[late])):
        window = max(1, len(values) // 10)
        found[f"{name}_growth"] = float(values[-window:].mean() / values[:window].mean())
        found[f"{name}_mb_per_1000"] = float(1000 * np.polyfit(steps[late], values, 1)[0])
    return found


if __name__ == "__main__":
    main()
