"""The end of a sweep: its parent closed, what was spent said, and what it found logged and shown."""

import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING

from pipelines.core.errors import StoreError, UserError
from pipelines.core.process import mute_unread_streams
from pipelines.runs.spent import account_for_dead, keep_for_dead
from pipelines.runs.sweep import Outcome, Sweep
from pipelines.tracking.parent_run import demote, finish_sweep
from pipelines.tracking.read import read_rows
from pipelines.tracking.store import impatient, open_store, viewer

if TYPE_CHECKING:
    from pipelines.tracking.store import Store

DEAD_SHOWN = 8
"""Lines about runs that were cut short; the log has all of them."""


def end_sweep(sweep: Sweep, outcome: Outcome) -> bool:
    """Closes the parent run; logs and prints what its runs cost together, whom they show, and the frontier.

    Each part is tried whatever became of the others; one that fails costs the parent its FINISHED.

    Args:
      sweep: whose jobs are over.
      outcome: what the launcher saw.

    Returns:
      Whether the sweep finished and has all of its parts.
    """
    with impatient() if sweep.store_is_lost else nullcontext():
        try:
            store = open_store(sweep.uri, sweep.experiment)
            finished = finish_sweep(store, sweep.parent_id, outcome=outcome) == "FINISHED"
        except Exception as error:  # of whatever kind: what was spent must still be said
            _complain(f"the sweep's run {sweep.parent_id} could not be closed, so it has no frontier", error)
            _tell(keep_for_dead(sweep.uri))
            return False
    _tell(account_for_dead(store))
    parts = _Parts(store, sweep.parent_id)
    sentences, members = parts.cost(), parts.membership()
    parts.frontier()
    if parts.missing and finished:
        with impatient(), suppress(StoreError):
            demote(store, sweep.parent_id, f"without {', '.join(parts.missing)}")
    try:
        for sentence in sentences:
            print(sentence)
        if members:
            print(f"\nWho was in the training data? Not covered by any epsilon.\n{members}")
        print(f"\nLook at every run: {viewer(sweep.uri)}")
    except BrokenPipeError:  # everything is in the log
        mute_unread_streams()
    return finished and not parts.missing


class _Parts:
    """What a finished sweep owes its reader; a part that fails is named and leaves the others alone."""

    def __init__(self, store: "Store", parent_id: str) -> None:
        self.missing: list[str] = []
        self._store, self._parent_id = store, parent_id

    def cost(self) -> list[str]:
        """What the private runs cost together, in sentences."""
        from pipelines.runs.sweep_cost import in_words, record_cost

        try:
            with self._patience():
                costs = record_cost(self._store, self._parent_id)
                private = any("privacy.unit" in row.tags for row in read_rows(self._store, parent_id=self._parent_id))
        except Exception as error:
            self._lose("joint epsilon", error)
            return []
        if private and not costs:
            self.missing.append("joint epsilon")
            return ["What its private runs cost together is unknown: see choosing.md of the sweep's run."]
        return in_words(costs)

    def membership(self) -> str | None:
        """The table of the membership test, if there was one."""
        from pipelines.auditing.sweep_membership import publish_membership

        try:
            with self._patience():
                return publish_membership(self._store, self._parent_id)
        except Exception as error:
            self._lose("membership table", error)
            return None

    def frontier(self) -> None:
        """Accuracy against epsilon, printed and logged."""
        from pipelines.report.publish import NothingToShowError, publish

        try:
            with self._patience():
                publish(self._store, self._parent_id)
        except BrokenPipeError:  # what it prints, it has logged before
            mute_unread_streams()
        except NothingToShowError as error:  # if a run failed, the exit code says so; if all had canaries, all is well
            print(f"no frontier: {error}", file=sys.stderr)
        except Exception as error:
            self._lose("frontier", error)

    def _lose(self, part: str, error: Exception) -> None:
        self.missing.append(part)
        _complain(f"no {part}", error)

    def _patience(self) -> AbstractContextManager[None]:
        """A store that has failed once is not waited for again."""
        return impatient() if self.missing else nullcontext()


def _complain(what: str, error: Exception) -> None:
    reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {' '.join(str(error).split())}"
    print(f"{what}: {reason}", file=sys.stderr)


def _tell(dead: list[str]) -> None:
    for line in dead[:DEAD_SHOWN]:
        print(line, file=sys.stderr)
    if len(dead) > DEAD_SHOWN:
        print(f"and {len(dead) - DEAD_SHOWN} more runs, each with its epsilon in its note", file=sys.stderr)
