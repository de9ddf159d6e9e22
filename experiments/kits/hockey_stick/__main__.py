"""Tests one private step of each engine, unchanged and with bugs: `python -m experiments.kits.hockey_stick --help`."""

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from experiments.kits.hockey_stick.mutants import BUGS, planted
from experiments.kits.hockey_stick.one_step import OVERRIDES, OneStep, neighbours
from experiments.kits.hockey_stick.tester import MISSING, VARIABLE, Verdict, load, located
from pipelines.core.errors import UserError

LEAST_SAMPLES = 100


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 if the tester objects to the bugs only, or is not installed."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.kits.hockey_stick",
        description="One private step of each engine under the hockey-stick tester of DP-Auditorium, with and without "
        "bugs; exit code 1 if it misses one, or objects to a step as it is.",
    )
    parser.add_argument(
        "--checkout", type=Path, help=f"of google/differential-privacy; else ${VARIABLE}, else what is installed"
    )
    parser.add_argument("--engine", nargs="+", choices=OVERRIDES, default=list(OVERRIDES), help="default: both")
    parser.add_argument("--samples", type=int, default=1600, help="of each dataset; half of them train the classifier")
    parser.add_argument("--seed", type=int, default=0, help="of samples, noise and classifier")
    given = parser.parse_args(arguments)
    if given.samples < LEAST_SAMPLES:
        parser.error(f"--samples={given.samples} shows nothing; give {LEAST_SAMPLES} or more")
    try:
        package = located(given.checkout)
        if package is None:
            sys.stdout.write(MISSING + "\n")
            return 0
        test = load(package)
        wrong = sum(examine(engine, test, samples=given.samples, seed=given.seed) for engine in given.engine)
    except UserError as error:
        parser.error(str(error))
    return int(wrong > 0)


def examine(engine: str, test: Callable[..., Verdict], *, samples: int, seed: int) -> int:
    """Prints the tester's verdict on the unchanged step and on each bug; returns the number of wrong verdicts."""
    pair = neighbours(engine)
    step = OneStep.of(engine, pair[0], seed=seed)
    epsilon, delta, wrong = step.epsilon, step.plan.delta, 0
    sys.stdout.write(f"{engine}: one step claims epsilon {epsilon:.4f} at delta {delta:g}\n")
    for bug in (None, *BUGS):
        since = time.perf_counter()
        with planted(engine, bug) if bug else nullcontext():
            found = test(step, pair, epsilon=epsilon, delta=delta, samples=samples, seed=seed)
        wrong += found.violated != (bug is not None)
        verdict = "a violation" if found.violated else "no violation"
        sys.stdout.write(
            f"  {bug or 'as it is'}: delta at least {found.lower_bound:.3f}, {verdict}"
            f" ({time.perf_counter() - since:.0f} s)\n"
        )
        sys.stdout.flush()
    return wrong


if __name__ == "__main__":
    sys.exit(main())
