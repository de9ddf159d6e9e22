"""Writes what a private run spent to its log or, if that fails, to this machine's disk."""

from dataclasses import asdict, dataclass
from math import inf
from typing import TYPE_CHECKING

from pipelines.core.errors import GuaranteeError, StoreError
from pipelines.tracking.ledger import Entry, open_entries
from pipelines.tracking.listeners import reopen
from pipelines.tracking.orphans import close_run
from pipelines.tracking.run_log import NOTE, RunLog
from pipelines.tracking.store import impatient

if TYPE_CHECKING:
    from pipelines.privacy.guarantee import PrivacyGuarantee
    from pipelines.privacy.mechanisms.base import Mechanism
    from pipelines.privacy.sampling import SamplerVerdict
    from pipelines.tracking.store import Store


@dataclass(frozen=True)
class Terms:
    """What the words of a guarantee need besides the guarantee.

    Attributes:
      population_stated: whether the number of units was given in advance.
      preface: sentences before the note.
      users: whether users are simulated or the data's own, in words; None where examples are protected.
      copies: size of the largest group of equal training examples; None keeps it secret.
    """

    population_stated: bool
    preface: str
    users: str | None = None
    copies: int | None = None


def begin_account(
    plan: "Mechanism", store: "Store", run_id: str, terms: Terms, *, simulated: bool, secure_aggregation: bool
) -> Entry:
    """Begins the account of a private run's steps; their cost is computed later, and only if it is needed.

    Raises:
      UserError: no folder for the account can be written.
    """
    from pipelines.privacy.accounting.epsilon import AccountantResult
    from pipelines.privacy.guarantee import PrivacyGuarantee

    not_computed = (AccountantResult(accountant="none yet", version="", epsilon=inf),)
    planned = PrivacyGuarantee(
        epsilon=inf,
        executed=plan,
        accountant_results=not_computed,
        simulated=simulated,
        secure_aggregation=secure_aggregation,
    )
    return Entry.open(run_id, uri=store.uri, terms=asdict(terms), planned=planned.to_dict())


def log_guarantee(
    guarantee: "PrivacyGuarantee",
    log: RunLog,
    terms: Terms,
    *,
    sampler_judged: bool = True,
    exposure: str | None = None,
) -> None:
    """Logs a guarantee as JSON, as a statement in plain words, and in the note.

    Args:
      guarantee: the run's guarantee.
      log: the run's log.
      terms: what the words need besides the guarantee.
      sampler_judged: whether the samples of the training were tested against the assumed distribution.
      exposure: how others could reach the data during training, in words; None if they could not.
    """
    from pipelines.privacy.statement import caveats, promise, statement

    log.on_artifact("privacy.json", guarantee.to_dict())
    text = statement(
        guarantee, population_stated=terms.population_stated, sampler_judged=sampler_judged, users=terms.users,
        copies=terms.copies, exposure=exposure,
    )  # fmt: skip
    log.on_artifact("privacy_statement.md", text)
    if terms.copies is not None:
        log.on_metrics(0, {"diagnostics/largest_group_of_equal_examples": terms.copies})
    invented = "" if terms.users is None else f" {terms.users}"
    covered = f"{promise(guarantee)}{invented} {caveats(guarantee, sampler_judged=sampler_judged, exposure=exposure)}"
    tags = {NOTE: f"{terms.preface}{covered}"}
    if guarantee.contradictions:
        tags["privacy.contradictions"] = "; ".join(guarantee.contradictions)
    if remarks := [f"{result.accountant} {result.remark}" for result in guarantee.accountant_results if result.remark]:
        tags["privacy.unconfirmed"] = "; ".join(remarks)
    log.on_tags(tags)


def log_verdict(verdict: "SamplerVerdict", log: RunLog) -> None:
    """Logs the verdict on a run's samples."""
    log.on_metrics(0, {"privacy/sampler_p_value": verdict.p_value})
    log.on_tags({"privacy.sampler": verdict.law if verdict.holds else "contradicted"})


def spent_in_words(guarantee: "PrivacyGuarantee") -> str:
    """Steps, epsilon and delta, for the terminal."""
    from pipelines.privacy.rounding import rounded_up

    plan = guarantee.executed
    return f"{plan.steps:,} steps spent epsilon {rounded_up(guarantee.epsilon)} at delta {rounded_up(plan.delta, 6)}"


def log_or_keep(
    entry: Entry,
    guarantee: "PrivacyGuarantee",
    log: RunLog,
    verdict: "SamplerVerdict | None" = None,
    exposure: str | None = None,
) -> str | None:
    """Logs the guarantee of a run that was cut short, and closes its account.

    Args:
      entry: the account.
      guarantee: the guarantee of the steps that ran.
      log: the run's log.
      verdict: the verdict on its samples, if there is one.
      exposure: as in `log_guarantee`.

    Returns:
      None if the store took everything; otherwise a sentence that says where the guarantee is kept.
    """
    try:
        with impatient():
            log.on_metrics(guarantee.executed.steps, {"privacy/epsilon": guarantee.epsilon})
            log.flush()
            if verdict is not None:
                log_verdict(verdict, log)
            terms = Terms(**entry.values["terms"])
            log_guarantee(guarantee, log, terms, sampler_judged=verdict is not None, exposure=exposure)
            log.flush()
    except Exception:  # any kind: it must not hide why the run ended
        return _keep(entry, guarantee)
    entry.close()
    return None


def account_for_dead(store: "Store") -> list[str]:
    """Logs the epsilon of private runs whose process died, for the steps that they may have run.

    Returns:
      One line for each run, for the terminal.
    """
    lines: list[str] = []
    for entry in open_entries(store.uri):
        run_id = entry.values["run_id"]
        with impatient():
            try:
                if not close_run(store, run_id):  # the run was deleted, has finished, or was refuted
                    entry.close()
                    continue
            except StoreError:
                return [*lines, *keep_for_dead(store.uri)]
        guarantee = _guarantee(entry)
        lines.append(_cut_short(entry, guarantee, log_or_keep(entry, guarantee, reopen(store, run_id))))
    return lines


def keep_for_dead(uri: str) -> list[str]:
    """Does the same if the store is lost: keeps guarantees on this machine's disk, and skips those already there."""
    lines: list[str] = []
    for entry in open_entries(uri):
        if entry.kept.exists():
            continue
        guarantee = _guarantee(entry)
        lines.append(_cut_short(entry, guarantee, _keep(entry, guarantee)))
    return lines


def _cut_short(entry: Entry, guarantee: "PrivacyGuarantee", kept: str | None) -> str:
    line = f"run {entry.values['run_id']} was cut short: at most {spent_in_words(guarantee)}"
    return line if kept is None else f"{line}; {kept}"


def _keep(entry: Entry, guarantee: "PrivacyGuarantee") -> str:
    path = entry.keep(guarantee.to_dict())
    return f"its guarantee is kept in {path}" if path else "neither the store nor this disk could keep its guarantee"


def _guarantee(entry: Entry) -> "PrivacyGuarantee":
    from pipelines.privacy.guarantee import PrivacyGuarantee

    planned = PrivacyGuarantee.from_dict(entry.values["planned"])
    terms = {"simulated": planned.simulated, "secure_aggregation": planned.secure_aggregation}
    try:
        return PrivacyGuarantee.of(planned.executed.executed(entry.steps), **terms)
    except GuaranteeError:  # the run began, so the accountants agree on the whole plan
        return PrivacyGuarantee.of(planned.executed, **terms)
