"""Accounts of private runs on this machine's disk, in case a run's store or process dies.

An account exists from the start of a run until its guarantee is in the store. If the process is gone, the next run
reads the account and reports what was spent.
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
"""Bytes of the first line, which holds the step. It is overwritten in place, which works on a full disk too."""
NAME = "privacy-pipelines"


@dataclass
class Entry:
    """The account of one private run.

    Attributes:
      path: its file.
      values: plain data: `run_id`, `uri`, `process`, `planned` (the plan as a guarantee whose epsilon is not known
        yet), and `terms` (what the words of the guarantee need).
      steps: steps that may have run; all planned steps if the number is not known.
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
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held until this process ends
                os.write(file, text.encode())
                os.fsync(file)
                return cls(path, values, 0, file)
        raise UserError(
            f"TMPDIR={tempfile.gettempdir()} cannot be written, and private runs count their steps there; set TMPDIR "
            "to a folder that can be written to"
        )

    def count(self, step: int) -> None:
        """Notes that a step has run."""
        assert self._file is not None, "only the process of the run counts its steps"
        self.steps = step
        try:
            os.pwrite(self._file, f"{step:>{WIDTH - 1}}".encode(), 0)
        except OSError:  # no account is better than one that is too low
            self.path.unlink(missing_ok=True)

    def keep(self, guarantee: dict[str, Any]) -> Path | None:
        """Writes a guarantee that the store refused beside the account; returns None if the disk refuses it too."""
        try:
            draft = self.kept.with_suffix(".draft")  # half a file would count as reported
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
    """Yields the accounts of a store's runs that no run will close any more.

    The caller has no open run, so the accounts of its own process are included.
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
            # After a crash of the machine the count may be too old. The step after the last counted one may have run.
            known = path.stat().st_mtime > psutil.boot_time()
            yield Entry(path, values, min(int(text[:WIDTH]) + 1, planned) if known else planned)


def _held(path: Path) -> bool:
    """Whether the process of an account still runs: its lock ends with it, and does not depend on clocks."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _folders() -> list[Path]:
    """The folders for this user's accounts, the preferred one first."""
    return [Path(user_state_dir(NAME)), Path(tempfile.gettempdir(), f"{NAME}-state-{os.getuid()}")]
