"""The mechanism audit of a finished run: `python -m pipelines.audit RUN_ID`.

Rebuilds the run's engine from its logged configuration, audits it against the logged guarantee, and logs what it found
with the run. Exit code 1, and the run marked FAILED, if the audit contradicts the run.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.ending import exit_after
from pipelines.errors import UserError

if TYPE_CHECKING:
    from pipelines.audit.finding import Finding


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    chosen = _parser().parse_args(arguments)
    try:
        print(audit_run(chosen.run_id, chosen.uri, confidence=chosen.confidence).summary())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def audit_run(run_id: str, uri: str | None, *, confidence: float) -> "Finding":
    """Audits a finished private run and logs what was found with it.

    Args:
      run_id: in MLflow.
      uri: of the store, as tracking.uri.
      confidence: of the lower bound.

    Raises:
      AuditError: the audit contradicts the run, which is FAILED from now on.
      UserError: no such run, or one without a guarantee.
    """
    import yaml

    from pipelines.audit.conduct import log_finding
    from pipelines.audit.finding import AuditError
    from pipelines.audit.mechanism import audit_mechanism
    from pipelines.config import parse
    from pipelines.cores import available_cores
    from pipelines.job import model_spec
    from pipelines.privacy.guarantee import PrivacyGuarantee
    from pipelines.result import source_commit
    from pipelines.tracking.finished import open_finished
    from pipelines.tracking.run_log import refuted

    run = open_finished(uri, run_id)
    then = str(run.store.client.get_run(run_id).data.tags.get("mlflow.source.git.commit"))
    if then != (now := source_commit()):
        print(f"note: the run was made by commit {then[:12]}; what is audited is {now[:12]}", file=sys.stderr)
    guarantee = PrivacyGuarantee.from_dict(json.loads(run.text("privacy.json")))
    config = parse(yaml.safe_load(run.text("config.yaml")))
    threads = config.threads or available_cores()
    spec = model_spec(config, threads)
    finding = audit_mechanism(
        config, guarantee.executed, spec, claim=guarantee.epsilon, confidence=confidence, threads=threads
    )
    log_finding(finding, run.log)
    try:
        finding.require()
    except AuditError as error:
        run.fail(str(error))
        run.log.tags(refuted(error))
        run.log.text("privacy_statement.md", f"# No guarantee\n\n{error}.\n")
        raise
    return finding


def _confidence(text: str) -> float:
    value = float(text)
    if not 0.5 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} must lie in [0.5, 1)")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.audit",
        description="Measures what noise and sensitivity the engine of a finished private run really has.",
    )
    parser.add_argument("run_id", metavar="RUN_ID", help="as in MLflow; a run prints it when it ends")
    parser.add_argument("--uri", help="MLflow store, as tracking.uri (default: mlflow.db in the repository)")
    parser.add_argument(
        "--confidence", type=_confidence, default=0.95, help="of the lower bound (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    exit_after(main)
