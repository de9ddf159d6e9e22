"""The end of a sweep: closes its parent run, reports what was spent, and logs and prints its results."""

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
"""Lines printed about runs that were cut short; the log has all of them."""


def end_sweep(sweep: Sweep, outcome: Outcome) -> bool:
    """Closes the parent run; logs and prints the runs' joint cost, the membership table, and the frontier.

    Each part is tried, even after another one failed. If a part fails, the parent is marked FAILED.

    Args:
      sweep: a sweep whose jobs have ended.
      outcome: what the launcher saw.

    Returns:
      Whether the sweep finished and has all of its parts.
    """
    with impatient() if sweep.store_is_lost else nullcontext():
        try:
            store = open_store(sweep.uri, sweep.experiment)
            finished = finish_sweep(store, sweep.parent_id, outcome=outcome) == "FINISHED"
        except Exception as error:  # any kind: what was spent must still be reported
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
    """The parts of a sweep's result; a part that fails is reported, and does not stop the others."""

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
            return ["The joint cost of its private runs is unknown: see choosing.md of the sweep's run."]
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
        except BrokenPipeError:  # it logs before it prints
            mute_unread_streams()
        except NothingToShowError as error:  # no fault: a failed run sets the exit code; runs with canaries do not show
            print(f"no frontier: {error}", file=sys.stderr)
        except Exception as error:
            self._lose("frontier", error)

    def _lose(self, part: str, error: Exception) -> None:
        self.missing.append(part)
        _complain(f"no {part}", error)

    def _patience(self) -> AbstractContextManager[None]:
        """After a first failure, does not wait long for the store again."""
        return impatient() if self.missing else nullcontext()


def _complain(what: str, error: Exception) -> None:
    reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {' '.join(str(error).split())}"
    print(f"{what}: {reason}", file=sys.stderr)


def _tell(dead: list[str]) -> None:
    for line in dead[:DEAD_SHOWN]:
        print(line, file=sys.stderr)
    if len(dead) > DEAD_SHOWN:
        print(f"and {len(dead) - DEAD_SHOWN} more runs, each with its epsilon in its note", file=sys.stderr)
