"""The audit that a run's configuration asks for: before training, and after it."""

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
"""Of what a canary client sends, in clip norms, so that clipping has something to do; as it is where nothing clips."""


class PlannedRun(Protocol):
    """What an audit needs to know of a run."""

    @property
    def config(self) -> Config:
        """The configuration, with what partition=auto stands for."""

    @property
    def dataset(self) -> Dataset:
        """Training and test split."""

    @property
    def spec(self) -> ModelSpec:
        """The architecture."""

    @property
    def plan(self) -> Mechanism | None:
        """What a private run does to its units; None where nothing is private."""

    @property
    def threads(self) -> int:
        """CPU threads."""


@dataclass(frozen=True)
class Audit:
    """One run's audit.

    Attributes:
      job: of the run.
      data: what the engine trains on: the run's own data, with canaries in it where the audit plants some.
    """

    job: PlannedRun
    data: TrainingData
    _trial: "CanaryTrial | None"

    @classmethod
    def of(cls, job: PlannedRun, data: TrainingData) -> "Audit":
        """Prepares the audit of a run.

        Raises:
          UserError: more canaries than the data has places for, or a plan without noise.
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
        """Returns an `on_round` that also feeds the audit."""
        return on_round if self._trial is None else self._trial.watching(on_round)

    def conclude(
        self, model: FittedModel, guarantee: PrivacyGuarantee | None, log: "RunLog"
    ) -> Finding | Membership | None:
        """Audits what was trained, and logs what was found.

        Args:
          model: the trained one.
          guarantee: the run's; None where it claims nothing.
          log: of the run.

        Raises:
          AuditError: the audit contradicts the claim or the plan; what it found is logged all the same.
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
            return None  # in a sweep over pipelines, those without a mechanism have nothing to audit
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
    """Writes a finding to a run, open or closed."""
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
    test = job.dataset.test.inputs  # no epsilon covers what comes from these, while the canaries are trained on
    usual = float(np.median(np.linalg.norm(test.reshape(len(test), -1), axis=1)))
    return plant_examples(data, audit.canaries, length=usual if audit.canary == "noise" else None, **streams)
