"""The mechanism audit of a run that has ended: its engine is rebuilt and audited against the logged guarantee."""

import json
import sys

import yaml

from pipelines.auditing.conduct import log_finding
from pipelines.auditing.finding import AuditError, Finding
from pipelines.auditing.mechanism import audit_mechanism
from pipelines.config.schema import parse
from pipelines.core.process import available_cores
from pipelines.core.provenance import source_commit
from pipelines.privacy.guarantee import PrivacyGuarantee
from pipelines.runs.prepare import model_spec
from pipelines.tracking.finished import open_finished
from pipelines.tracking.run_log import refuted


def audit_run(run_id: str, uri: str | None, *, confidence: float) -> Finding:
    """Audits a finished private run, and logs the finding with the run.

    Args:
      run_id: the id that the run printed at its end.
      uri: the store, as tracking.uri.
      confidence: confidence of the lower bound.

    Raises:
      AuditError: the audit contradicts the run; the run is then marked FAILED.
      UserError: there is no such run, or it has no guarantee.
    """
    run = open_finished(uri, run_id)
    if (then := run.commit()) != (now := source_commit()):
        print(f"note: the run was made by commit {then[:12]}; the audit runs commit {now[:12]}", file=sys.stderr)
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
        run.log.on_tags(refuted(error))
        run.log.on_artifact("privacy_statement.md", f"# No guarantee\n\n{error}.\n")
        raise
    return finding
