"""One run from plan to result: the only place that sees engine, accounting and log together."""

from contextlib import closing, suppress
from dataclasses import asdict
from importlib.metadata import version
from math import isfinite

import yaml

from pipelines.auditing.conduct import Audit
from pipelines.config.audit_settings import PlantingAudit
from pipelines.config.pipeline_settings import FederatedConfig
from pipelines.config.schema import Config
from pipelines.core.errors import DivergedError, GuaranteeError
from pipelines.core.process import pause_collector, resume_collector
from pipelines.core.provenance import Provenance, installed_versions, lock_sha256, source_commit
from pipelines.core.randomness import public_stream
from pipelines.core.terminal import decoration
from pipelines.engines.evaluation import Evaluation, score
from pipelines.engines.interface import Fit, Labels, RoundRecord, TrainingData
from pipelines.model.spec import initial_weights
from pipelines.privacy.accounting.cross_check import require_not_too_low
from pipelines.privacy.accounting.epsilon import accountant_of, accountant_results
from pipelines.privacy.execution_checks import require_executed
from pipelines.privacy.guarantee import PrivacyGuarantee
from pipelines.privacy.mechanisms.base import Mechanism
from pipelines.privacy.sampling import SamplerVerdict
from pipelines.privacy.statement import SECURE_SUM_NOTE
from pipelines.report.confusion import confusion_page
from pipelines.runs.prepare import Job
from pipelines.runs.progress import RunProgress
from pipelines.runs.result import RunResult
from pipelines.runs.spent import Terms, begin_account, log_guarantee, log_or_keep, log_verdict, spent_in_words
from pipelines.tracking.ledger import Entry
from pipelines.tracking.listeners import open_run
from pipelines.tracking.run_log import COMMIT, NOTE, RunLog, RunStart, flat, refuted
from pipelines.tracking.store import PACKAGE, Store, impatient


def execute(
    job: Job, store: Store, *, parent_id: str | None, overrides: list[str], position: int
) -> tuple[RunResult, str]:
    """Trains, evaluates, accounts and logs.

    Args:
      job: from `prepare`.
      store: from `open_store`.
      parent_id: of the sweep's run, if any.
      overrides: the command-line overrides that lead to this run.
      position: line of the progress bar.

    Returns:
      The result, and the run's id.

    Raises:
      UserError: training diverged, or the log became unreachable. The run is closed first.
      GuaranteeError: the samples, the engine or the accountants contradict the plan; the run then has no guarantee.
    """
    watcher = None
    try:
        with (
            open_run(store, _start(job, overrides, parent_id), job.config.tracking) as log,
            closing(RunProgress(job.name, position)) as progress,
        ):
            watcher = _Watcher(job, log, progress, _begin_account(job, store, log.run_id))
            log.on_artifact("config.yaml", yaml.safe_dump(job.config.model_dump(mode="json"), sort_keys=False))
            log.on_artifact("overrides.yaml", yaml.safe_dump(overrides))
            if job.plan is not None:  # now rather than after hours of training; the results are cached
                require_not_too_low(accountant_results(job.plan))
            audit = Audit.of(job, _training_data(job))
            fit = job.pipeline.fit(audit.data, audit.watching(watcher.on_round))
            pause_collector()
            result = _conclude(job, fit, watcher, log, audit)
    except BaseException as error:  # the run is closed by now: on a full disk its status comes before its guarantee
        if watcher is not None:
            watcher.salvage(error)
        raise
    if watcher.entry is not None:
        watcher.entry.close()
    return result, log.run_id


def _start(job: Job, overrides: list[str], parent_id: str | None) -> RunStart:
    return RunStart(
        name=job.name,
        tags=_tags(job, overrides) | {NOTE: _note(job)},
        params=flat(job.config.model_dump(mode="json")),
        dataset=job.dataset,
        parent_id=parent_id,
        private=job.plan is not None,
    )


def _begin_account(job: Job, store: Store, run_id: str) -> Entry | None:
    """Begins the account of a private run's steps."""
    if job.plan is None:
        return None
    modes = {"simulated": _simulated(job.config), "secure_aggregation": _secure(job)}
    return begin_account(job.plan, store, run_id, _terms(job), **modes)


def _training_data(job: Job) -> TrainingData:
    return TrainingData(
        inputs=job.dataset.train.inputs,
        labels=job.dataset.train.labels,
        partition=job.partition,
        spec=job.spec,
        initial_weights=initial_weights(job.spec, public_stream(job.config.seed, "initial_weights")),
    )


class _Watcher:
    """Evaluates at evenly spaced steps, and at the last one, on the test split that no engine sees."""

    def __init__(self, job: Job, log: RunLog, progress: RunProgress, entry: Entry | None) -> None:
        self.progress, self.entry = progress, entry
        self.evaluation: Evaluation | None = None
        self.predictions: Labels | None = None
        self._last: RoundRecord | None = None
        self._job, self._log = job, log

    def on_round(self, record: RoundRecord) -> None:
        resume_collector()  # the first step has imported and traced everything
        self._last = record
        if self.entry is not None:
            self.entry.count(record.step)
        self.progress.advance(record.step, record.steps)
        count = min(self._job.config.evaluations, record.steps)
        if record.step * count // record.steps == (record.step - 1) * count // record.steps:
            return
        test = self._job.dataset.test
        logits = record.model.logits(test.inputs)
        self.evaluation, self.predictions = score(logits, test.labels), logits.argmax(axis=1)
        metrics = {f"test/{name}": value for name, value in asdict(self.evaluation).items()}
        spent = None
        if self._job.plan is not None:
            so_far = self._job.plan.executed(record.step)
            spent = so_far.epsilon() if record.step == record.steps else so_far.quick_epsilon()
            metrics["privacy/epsilon"] = spent
        self._log.on_metrics(record.step, metrics)
        self.progress.report(self.evaluation, spent)
        if not isfinite(self.evaluation.loss):
            raise DivergedError(record.step, "the test loss")

    def salvage(self, error: BaseException) -> None:
        """Reports and logs the guarantee of a run that was cut short: the steps that ran have spent privacy.

        An error may reveal something of the step after the last reported one, so that step counts too. An interruption
        reveals nothing. A run that its own checks refute has no guarantee.
        """
        plan, last, verdict = self._job.plan, self._last, None
        try:
            if isinstance(error, GuaranteeError):
                raise error
            if plan is None or self.entry is None:
                return
            steps = min((0 if last is None else last.step) + isinstance(error, Exception), plan.steps)
            if last is not None:
                require_executed(plan, None if last.plan is None else last.plan.executed(last.step), last.step)
                verdict = _verdict(None if last.sampler is None else last.sampler.verdict())
                verdict.require()
            guarantee = _guarantee(self._job, plan.executed(steps))
        except GuaranteeError as refutation:
            if self.entry is not None:
                self.entry.close()
            with suppress(Exception), impatient():
                if verdict is not None:
                    log_verdict(verdict, self._log)
                self._log.on_tags(refuted(refutation))
            return
        error.add_note(spent_in_words(guarantee))
        exposure = None if last is None else last.exposure
        if kept := log_or_keep(self.entry, guarantee, self._log, verdict, exposure):
            error.add_note(kept)


def _conclude(job: Job, fit: Fit, watcher: _Watcher, log: RunLog, audit: Audit) -> RunResult:
    evaluation, predictions = watcher.evaluation, watcher.predictions
    assert evaluation is not None, "the last step is always evaluated"
    assert predictions is not None, "they come with the evaluation"
    guarantee = None
    if job.plan is not None:
        require_executed(job.plan, fit.executed, fit.record.step)
    if fit.executed is not None:
        _judge(fit.sampler, log)
        guarantee = _guarantee(job, fit.executed)
    finding = audit.conclude(fit.record.model, guarantee, log)
    if guarantee is not None:
        log_guarantee(guarantee, log, _terms(job), exposure=fit.record.exposure)
    record, test = fit.record, job.dataset.test
    log.on_metrics(
        record.step,
        {
            "test/majority": job.dataset.majority,
            "time/train_s": record.train_s,
            "time/examples_per_s": record.examples / max(record.train_s, 1e-9),
        },
    )
    log.on_tags({f"engine.{key}": value for key, value in fit.facts.items()})
    result = RunResult(evaluation=evaluation, guarantee=guarantee, provenance=_provenance(job), audit=finding)
    log.on_artifact("result.json", result.to_dict())
    log.flush()
    with decoration("confusion_matrix.html"):
        log.on_artifact("confusion_matrix.html", confusion_page(test.labels, predictions, job.dataset.classes))
    if job.config.tracking.log_model:
        with decoration("logged model"):
            log.on_model(record.model, job.dataset.features)
    return result


def _guarantee(job: Job, executed: Mechanism) -> PrivacyGuarantee:
    return PrivacyGuarantee.of(executed, simulated=_simulated(job.config), secure_aggregation=_secure(job))


def _secure(job: Job) -> bool:
    return isinstance(job.config.pipeline, FederatedConfig) and job.config.pipeline.secure_aggregation


def _verdict(verdict: SamplerVerdict | None) -> SamplerVerdict:
    if verdict is None:
        raise GuaranteeError("the run kept no record of its samples: its epsilon could be false; report this bug")
    return verdict


def _judge(found: SamplerVerdict | None, log: RunLog) -> None:
    """Logs the verdict on the samples; a run that it contradicts gets no guarantee.

    Raises:
      GuaranteeError: there is no record, or it contradicts the plan.
    """
    verdict = _verdict(found)
    log_verdict(verdict, log)
    verdict.require()


def _terms(job: Job) -> Terms:
    return Terms(
        population_stated=job.config.privacy.population is not None,
        preface=_canaries(job.config),
        users=job.users_in_words,
        copies=job.released_copies,
    )


def _simulated(config: Config) -> bool:
    return config.privacy.noise_seed is not None


def _note(job: Job) -> str:
    """Returns two sentences for the UI; at the end of a private run, its guarantee replaces them."""
    config = job.config
    text = f"Trains {config.model.name} on {job.dataset.name} with {config.pipeline.name}. "
    text += _canaries(config)
    if _secure(job):
        text += f"{SECURE_SUM_NOTE} "
    return text + ("Its guarantee follows when it ends." if job.plan else "It gives no privacy guarantee.")


def _canaries(config: Config) -> str:
    if not isinstance(config.audit, PlantingAudit):
        return ""
    return f"Up to {config.audit.canaries} canaries of audit={config.audit.name} are in its data. "


def _tags(job: Job, overrides: list[str]) -> dict[str, str]:
    config, provenance = job.config, _provenance(job)
    tags = {
        "pipeline": config.pipeline.name,
        "dataset": job.dataset.name,
        "model": config.model.name,
        "seed": str(config.seed),
        "data.sha256": provenance.data_sha256,
        "config.sha256": provenance.config_sha256,
        "lock.sha256": provenance.lock_sha256,
        COMMIT: provenance.commit,
        "overrides": " ".join(overrides),
    }
    if provenance.partition_sha256 is not None:
        tags["partition.sha256"] = provenance.partition_sha256
    if config.divided:
        tags["partition.simulated"] = str(config.partition.name != "natural").lower()
    if isinstance(config.audit, PlantingAudit):  # canaries change the data, and so the accuracy
        tags["audit.canaries"] = str(config.audit.canaries)
    if job.plan is not None:
        tags |= {
            "privacy.unit": str(job.plan.unit),
            "privacy.relation": str(job.plan.relation),
            "privacy.delta": repr(job.plan.delta),
            "privacy.population": str(job.plan.population),
            "privacy.noise_multiplier": f"{job.plan.noise_multiplier:g}",
            "privacy.accountant": f"{accountant_of(job.plan)} {version('dp-accounting')}",
            "privacy.mechanism": job.plan.name,
            "privacy.simulated": str(_simulated(config)).lower(),
        }
    return tags


def _provenance(job: Job) -> Provenance:
    return Provenance(
        commit=source_commit(),
        lock_sha256=lock_sha256(),
        data_sha256=job.dataset.fingerprint,
        partition_sha256=None if job.partition is None else job.dataset.mark(job.partition.fingerprint),
        config_sha256=job.config.fingerprint,
        seed=job.config.seed,
        versions=installed_versions(PACKAGE),
    )
