"""What a person at the terminal sees while runs go on; quiet where there is no terminal."""

import time
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from pipelines.result import Evaluation


class RunProgress:
    """A bar over the steps of one run, with accuracy and the epsilon spent."""

    def __init__(self, label: str, position: int) -> None:
        self._label, self._position = label, position
        self._bar: tqdm | None = None

    def advance(self, step: int, steps: int) -> None:
        """Moves to a step; the first call draws the bar."""
        if self._bar is None:
            # disable=None: tqdm's own check for a terminal.
            self._bar = tqdm(
                desc=self._label, total=steps, unit="step", leave=False, disable=None, position=self._position
            )
        self._bar.update(step - self._bar.n)

    def report(self, evaluation: "Evaluation", epsilon: float | None) -> None:
        """Shows the newest evaluation."""
        if self._bar is not None:
            spent = "" if epsilon is None else f", epsilon {epsilon:.2f}"
            self._bar.set_postfix_str(f"accuracy {evaluation.accuracy:.3f}{spent}")

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()


class SweepProgress:
    """A bar over the runs of a sweep, with an estimate of the time left; a line a run where there is no terminal."""

    def __init__(self, runs: int) -> None:
        self._runs, self._done, self._start = runs, 0, time.monotonic()
        self._bar = tqdm(desc="sweep", total=runs, unit="run", disable=None, position=0)

    def finish_run(self, line: str) -> None:
        """Counts a run and prints its outcome."""
        self._done += 1
        spent = time.monotonic() - self._start
        left = spent / self._done * max(self._runs - self._done, 0)
        tqdm.write(f"[{self._done:{len(str(self._runs))}d}/{self._runs}] {line}   {_clock(left)} left")
        self._bar.update()

    def close(self) -> None:
        """Leaves the finished bar on screen."""
        self._bar.close()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
