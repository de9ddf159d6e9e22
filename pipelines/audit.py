"""The mechanism audit of a finished run: `python -m pipelines.audit RUN_ID`.

Rebuilds the run's engine from its logged configuration, audits it against the logged guarantee, and logs what it found
with the run. Exit code 1, and the run marked FAILED, if the audit contradicts the run.
"""

import argparse
import sys
from collections.abc import Sequence

from pipelines.core.errors import UserError
from pipelines.core.process import exit_after
from pipelines.tracking.address import URI_HELP


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    chosen = _parser().parse_args(arguments)
    try:
        from pipelines.runs.audit_finished import audit_run

        print(audit_run(chosen.run_id, chosen.uri, confidence=chosen.confidence).summary())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _confidence(text: str) -> float:
    value = float(text)
    if not 0.5 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} must lie in [0.5, 1)")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.audit",
        description="Measures the real noise and sensitivity of the engine of a finished private run.",
    )
    parser.add_argument("run_id", metavar="RUN_ID", help="a run prints its id when it ends")
    parser.add_argument("--uri", help=URI_HELP)
    parser.add_argument(
        "--confidence", type=_confidence, default=0.95, help="confidence of the lower bound (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    exit_after(main)
