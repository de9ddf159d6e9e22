"""What a private run has spent, on this machine's own disk: for when its store or its process dies.

An entry is there from a run's first step until its guarantee is in the store. Who finds one of a process that is gone
can say what was spent.
"""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from platformdirs import user_state_dir

from pipelines.core.errors import UserError
from pipelines.tracking.orphans import process_tag

WIDTH = 20
"""Bytes of the first line, which holds the step and is overwritten in place: that needs no room on a full disk."""
NAME = "privacy-pipelines"


@dataclass
class Entry:
    """One private run's line of account.

    Attributes:
      path: its file.
      values: plain data: `run_id`, `uri`, `process`, `planned` (the plan in the form of a guarantee, without an epsilon
        yet), and `terms`, which go with it.
      steps: that may have run; all of the plan where that is not known.
    """

    path: Path
    values: dict[str, Any]
    steps: int
    _file: int | None = None

    @classmethod
    def open(cls, run_id: str, **values: Any) -> "Entry":
        """Begins the account of a run of this process.

        Args:
          run_id: in MLflow.
          values: `uri`, `planned` and `terms`, see above.

        Raises:
          UserError: no folder of this machine can be written.
        """
        values |= {"run_id": run_id, "process": process_tag()["process"]}
        text = f"{0:>{WIDTH - 1}}\n{json.dumps(values)}"
        for folder in _folders():
            path = folder / f"{run_id}.ledger"
            with suppress(OSError):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                if folder.stat().st_uid != os.getuid():
                    continue
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # for as long as this process lives
                os.write(file, text.encode())
                os.fsync(file)
                return cls(path, values, 0, file)
        raise UserError(
            f"TMPDIR={tempfile.gettempdir()} cannot be written; private runs keep account of their steps there"
        )

    def count(self, step: int) -> None:
        """Notes that a step has run."""
        assert self._file is not None, "of this process"
        self.steps = step
        try:
            os.pwrite(self._file, f"{step:>{WIDTH - 1}}".encode(), 0)
        except OSError:  # better no account than one that is too low
            self.path.unlink(missing_ok=True)

    def keep(self, guarantee: dict[str, Any]) -> Path | None:
        """Writes a guarantee, which the store did not take, beside the account; None where the disk takes nothing."""
        try:
            draft = self.kept.with_suffix(".draft")  # half a file would count as told
            draft.write_text(json.dumps(guarantee, indent=2) + "\n", encoding="utf-8")
            draft.replace(self.kept)
        except OSError:
            return None
        return self.kept

    @property
    def kept(self) -> Path:
        """Where `keep` writes."""
        return self.path.with_name(f"{self.values['run_id']}.privacy.json")

    def close(self) -> None:
        """Ends the account: the store has the run's guarantee, or the run has none."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
            self.kept.unlink(missing_ok=True)


def open_entries(uri: str) -> Iterator[Entry]:
    """Yields the accounts that no run will close any more, of runs in a store.

    Called where this process has no run open, so that its own accounts are among them.
    """
    for path in (path for folder in _folders() for path in sorted(folder.glob("*.ledger"))):
        with suppress(OSError, ValueError, KeyError):
            if path.stat().st_uid != os.getuid():
                continue
            text = path.read_text(encoding="utf-8")
            values = json.loads(text[WIDTH:])
            if values["uri"] != uri or (values["process"] != process_tag()["process"] and _held(path)):
                continue
            planned = values["planned"]["steps"]
            # After a crash of the machine the file may be older than the run. The step after the last one may have run.
            known = path.stat().st_mtime > psutil.boot_time()
            yield Entry(path, values, min(int(text[:WIDTH]) + 1, planned) if known else planned)


def _held(path: Path) -> bool:
    """Whether the process that keeps an account lives: its lock goes with it, whatever the clock says."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _folders() -> list[Path]:
    """Places of this user, the better one first."""
    return [Path(user_state_dir(NAME)), Path(tempfile.gettempdir(), f"{NAME}-state-{os.getuid()}")]
