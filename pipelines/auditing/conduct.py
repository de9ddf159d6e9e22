"""Runs the audit of a run's configuration: prepares it before training, concludes it afterwards."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pipelines.auditing.finding import Finding, Membership
from pipelines.auditing.membership import CURVE_FILE, roc, scores
from pipelines.config.audit_settings import AuditConfig, CanaryClientsAudit, MechanismAudit, OneRunAudit, PlantingAudit
from pipelines.config.schema import Config
from pipelines.core.randomness import private_stream, public_stream
from pipelines.core.terminal import decoration
from pipelines.data.dataset import Dataset
from pipelines.engines.interface import FittedModel, OnRound, TrainingData
from pipelines.model.spec import ModelSpec
from pipelines.privacy.guarantee import PrivacyGuarantee
from pipelines.privacy.mechanisms.base import Mechanism, NeighboringRelation

if TYPE_CHECKING:
    from pipelines.auditing.canaries import ClientCanaries, ExampleCanaries
    from pipelines.auditing.canary_trial import CanaryTrial
    from pipelines.tracking.run_log import RunLog

CANARY_LENGTH = 10.0
"""Norm of a canary client's update, in clip norms, so that it is clipped; the norm itself in a run without clipping."""


class PlannedRun(Protocol):
    """What an audit needs to know about a run."""

    @property
    def config(self) -> Config:
        """The configuration, with partition=auto resolved."""

    @property
    def dataset(self) -> Dataset:
        """Training and test split."""

    @property
    def spec(self) -> ModelSpec:
        """The architecture."""

    @property
    def plan(self) -> Mechanism | None:
        """The mechanism of a private run; None if the run is not private."""

    @property
    def threads(self) -> int:
        """CPU threads."""


@dataclass(frozen=True)
class Audit:
    """One run's audit.

    Attributes:
      job: the planned run.
      data: training data for the engine: the run's own data, with canaries if the audit plants some.
    """

    job: PlannedRun
    data: TrainingData
    _trial: "CanaryTrial | None"

    @classmethod
    def of(cls, job: PlannedRun, data: TrainingData) -> "Audit":
        """Prepares the audit of a run.

        Raises:
          UserError: the data has too few units for the canaries, or the plan has no noise.
        """
        audit = job.config.audit
        if isinstance(audit, MechanismAudit) and job.plan is not None:
            from pipelines.auditing.mechanism import require_auditable

            require_auditable(job.plan)
        if not isinstance(audit, PlantingAudit):
            return cls(job, data, None)
        from pipelines.auditing.canary_trial import CanaryTrial

        trial = CanaryTrial(_plant(job, audit, data), audit.score)
        return cls(job, trial.data, trial)

    def watching(self, on_round: OnRound) -> OnRound:
        """Returns an `on_round` that also passes each record to the audit."""
        return on_round if self._trial is None else self._trial.watching(on_round)

    def conclude(
        self, model: FittedModel, guarantee: PrivacyGuarantee | None, log: "RunLog"
    ) -> Finding | Membership | None:
        """Audits the trained model, and logs the finding.

        Args:
          model: the trained model.
          guarantee: of the run; None if the run claims nothing.
          log: of the run.

        Raises:
          AuditError: the audit contradicts the claim or the plan; the finding is logged before.
        """
        config = self.job.config
        if config.audit.name == "membership":
            return self._recognise(model, guarantee, log)
        finding = self._finding(config.audit, guarantee)
        if finding is not None:
            log_finding(finding, log)
            finding.require()
        return finding

    def _finding(self, audit: AuditConfig, guarantee: PrivacyGuarantee | None) -> Finding | None:
        job, claim = self.job, None if guarantee is None else guarantee.epsilon
        if self._trial is not None:
            assert isinstance(audit, PlantingAudit), "a trial has canaries"
            return self._trial.conclude(
                audit=audit.name,
                guesses=audit.guesses,
                claim=claim,
                delta=job.config.privacy.delta,
                confidence=audit.confidence,
            )
        if not isinstance(audit, MechanismAudit) or guarantee is None:
            return None  # a sweep may also contain pipelines without a mechanism to audit
        from pipelines.auditing.mechanism import audit_mechanism

        return audit_mechanism(
            job.config,
            guarantee.executed,
            job.spec,
            claim=guarantee.epsilon,
            confidence=audit.confidence,
            threads=job.threads,
        )

    def _recognise(self, model: FittedModel, guarantee: PrivacyGuarantee | None, log: "RunLog") -> Membership:
        job, train, test = self.job, self.job.dataset.train, self.job.dataset.test
        curve = roc(scores(model, train.inputs, train.labels), scores(model, test.inputs, test.labels))
        plan = None if guarantee is None else guarantee.executed
        found = Membership(
            pipeline=job.config.pipeline.name,
            model=job.config.model.name,
            dataset=job.dataset.name,
            seed=job.config.seed,
            unit=None if plan is None else str(plan.unit),
            epsilon=None if guarantee is None else guarantee.epsilon,
            delta=None if plan is None else plan.delta,
            true_positive=curve.resolved(len(test)),
        )
        log.on_tags({"audit": "membership"})
        log.on_metrics(0, found.metrics())
        log.on_artifact(CURVE_FILE, {**found.to_dict(), "roc": curve.thinned().to_dict()})
        with decoration("membership.png"):
            from pipelines.auditing.membership_figure import membership_figure

            log.on_artifact("membership.png", membership_figure(curve, found))
        return found


def log_finding(finding: Finding, log: "RunLog") -> None:
    """Logs a finding with a run, open or closed."""
    verdict = "contradicted" if finding.refuted or not finding.consistent else "not contradicted"
    log.on_tags({"audit": finding.audit, "audit.verdict": verdict})
    log.on_metrics(0, finding.metrics())
    log.on_artifact("audit.json", finding.to_dict())
    log.flush()


def _plant(
    job: PlannedRun, audit: OneRunAudit | CanaryClientsAudit, data: TrainingData
) -> "ExampleCanaries | ClientCanaries":
    from pipelines.auditing.canaries import plant_clients, plant_examples

    streams = {"content": public_stream(job.config.seed, "canaries"), "coins": private_stream(None, "coins")}
    if isinstance(audit, CanaryClientsAudit):
        stay = job.plan is not None and job.plan.relation is NeighboringRelation.REPLACE_SPECIAL
        length = CANARY_LENGTH * (1.0 if job.plan is None else job.plan.clip_norm)
        return plant_clients(data, audit.canaries, length=length, stay=stay, **streams)
    # The norm of canaries must not follow from the training data. No epsilon covers what follows from the test split.
    test = job.dataset.test.inputs
    usual = float(np.median(np.linalg.norm(test.reshape(len(test), -1), axis=1)))
    return plant_examples(data, audit.canaries, length=usual if audit.canary == "noise" else None, **streams)
