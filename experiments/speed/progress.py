"""One line for each measurement, with an estimate of the remaining time."""

from collections.abc import Sequence

from experiments.speed.runner import Measurement
from experiments.speed.subject import Chapter, Subject
from experiments.speed.table import number

WIDTH = 20


class Progress:
    """Counts measurements over all sections."""

    def __init__(self, plan: Sequence[tuple[Chapter, Sequence[Subject]]], repeats: int) -> None:
        self._repeats = repeats
        self._waiting: dict[str, int] = {
            subject.name: min(repeats, subject.repeats or repeats) for _, subjects in plan for subject in subjects
        }
        self._total = sum(self._waiting.values())
        self._chapters = {subject.name: built for built, subjects in plan for subject in subjects}
        self._seconds: dict[str, float] = {}

    def finish(self, measurement: Measurement) -> None:
        """Prints a measurement that has ended."""
        name, built = measurement.subject, self._chapters[measurement.subject]
        self._waiting[name] -= 1
        self._seconds[name] = measurement.wall_s
        done = self._total - sum(self._waiting.values())
        outcome = f"failed: {measurement.failure}"
        if measurement.failure is None:
            metric = next(metric for metric in built.columns if metric in measurement.metrics)
            outcome = f"{number(measurement.metrics[metric]):>10} {built.columns[metric]}"
        print(
            f"[{done:{len(str(self._total))}d}/{self._total}] {built.section:9s} {name:{WIDTH}s} "
            f"{measurement.repeat}/{self._repeats} {outcome:28s} {_clock(self._left())} left",
            flush=True,
        )

    def _left(self) -> float:
        """Estimated seconds of the waiting measurements, from those that ran."""
        typical = sum(self._seconds.values()) / len(self._seconds)
        return sum(count * self._seconds.get(name, typical) for name, count in self._waiting.items())


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
