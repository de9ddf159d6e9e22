"""Progress at the terminal while runs go on; silent if there is no terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from tqdm import tqdm

from pipelines.privacy.rounding import rounded_up

if TYPE_CHECKING:
    from pipelines.engines.evaluation import Evaluation


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
        with _no_terminal_left(self._bar):
            self._bar.update(step - self._bar.n)

    def report(self, evaluation: "Evaluation", epsilon: float | None) -> None:
        """Shows the newest evaluation."""
        if self._bar is not None:
            spent = "" if epsilon is None else f", epsilon {rounded_up(epsilon, 3)}"
            with _no_terminal_left(self._bar):
                self._bar.set_postfix_str(f"accuracy {evaluation.accuracy:.3f}{spent}")

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            with _no_terminal_left(self._bar):
                self._bar.close()


class SweepProgress:
    """A bar over the runs of a sweep, with an estimate of the time left; without a terminal, one line for each run.

    Parallel jobs run in several processes, and each process draws the bar. So the caller counts the finished runs.
    """

    def __init__(self, runs: int) -> None:
        self._runs = runs
        self._bar = tqdm(desc="sweep", total=runs, unit="run", disable=None, position=0)

    def finish_run(self, line: str, *, done: int, elapsed_s: float) -> None:
        """Prints a run's outcome.

        Args:
          line: the outcome.
          done: runs of the sweep that have ended, this one included.
          elapsed_s: since the sweep began.
        """
        left = elapsed_s / done * max(self._runs - done, 0)
        tqdm.write(f"[{done:{len(str(self._runs))}d}/{self._runs}] {line}   {_clock(left)} left")
        sys.stdout.flush()  # otherwise a parallel job's process, which waits for work, keeps its lines in a buffer
        with _no_terminal_left(self._bar):
            self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Leaves the finished bar on screen."""
        with _no_terminal_left(self._bar):
            self._bar.close()


@contextmanager
def _no_terminal_left(bar: "tqdm[NoReturn]") -> Iterator[None]:
    """Goes on without the bar if its terminal has gone."""
    try:
        yield
    except BrokenPipeError:  # the reader closed the pipe, which ends the run
        raise
    except (OSError, ValueError):
        bar.disable = True


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
