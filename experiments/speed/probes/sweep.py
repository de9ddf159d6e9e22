"""Measures each further run of a sweep after its first: one process pays for imports and tracing once."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

from experiments.speed.probes.process import read_options, report

EXPERIMENT = "speed_sweep"


def main() -> None:
    """Runs a sweep of one seed and a sweep of several, and reports the seconds of a further run."""
    options = read_options()
    overrides = [*options["overrides"], f"tracking.experiment={EXPERIMENT}"]
    single = _seconds([*overrides, "seed=0"])
    seeds = ",".join(str(seed) for seed in range(options["seeds"]))
    together = _seconds(["-m", *overrides, f"seed={seeds}"])
    shutil.rmtree(Path("outputs", "frontier", EXPERIMENT), ignore_errors=True)  # a sweep writes its frontier there
    report({"single_s": single, "sweep_s": together, "further_s": (together - single) / (options["seeds"] - 1)})


def _seconds(overrides: list[str]) -> float:
    start = time.perf_counter()
    command = [sys.executable, "-m", "pipelines.run", *overrides]
    outcome = subprocess.run(command, text=True, capture_output=True)
    if outcome.returncode:
        sys.exit(outcome.stderr.strip().rpartition("\n")[2] or f"pipelines.run exited with {outcome.returncode}")
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
