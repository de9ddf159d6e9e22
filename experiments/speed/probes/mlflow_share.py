"""Measures MLflow's share of a run: runs a real command line in this process and times MLflow's client."""

import functools
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from experiments.speed.probes.process import read_options, report


class Meter:
    """Adds up the time in functions under labels; nested calls count for the outermost function."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self._busy = False

    def wrap(self, function: Callable[..., Any], label: str) -> Callable[..., Any]:
        """Returns the function with a clock around it."""

        @functools.wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:
            if self._busy:
                return function(*arguments, **options)
            self._busy, start = True, time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self._busy = False
                self.seconds[label] += time.perf_counter() - start
                self.calls[label] += 1

        return timed


def main() -> None:
    """Runs the overrides and reports the time in MLflow, and separately the time of saving the model."""
    options = read_options()
    from pipelines.tracking import mlflow_run
    from pipelines.tracking.store import import_mlflow

    import_mlflow()
    from mlflow import MlflowClient

    meter = Meter()
    mlflow_run.log_model = meter.wrap(mlflow_run.log_model, "model")
    for name in dir(MlflowClient):
        if name.startswith(("log_", "create_", "set_", "search_", "get_")):
            setattr(MlflowClient, name, meter.wrap(getattr(MlflowClient, name), "log"))
    sys.argv = ["pipelines.run", *options["overrides"]]
    from pipelines.run import main as run

    start = time.perf_counter()
    try:
        run()
    except SystemExit as stop:
        if stop.code:
            raise
    seconds = time.perf_counter() - start
    log, model = meter.seconds["log"], meter.seconds["model"]
    report(
        {"run_s": seconds, "logging_s": log, "calls": meter.calls["log"], "share": log / seconds, "model_s": model,
         "share_with_model": (log + model) / seconds}
    )  # fmt: skip


if __name__ == "__main__":
    main()
