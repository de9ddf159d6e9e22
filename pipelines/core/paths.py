"""Paths of the checkout, the caches and temporary folders, and who can change what is in them."""

import atexit
import os
import shutil
import stat
import tempfile
from pathlib import Path

from platformdirs import user_cache_dir

from pipelines.core.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]


def cache_folder() -> Path:
    """Returns PIPELINES_CACHE, else the operating system's place for caches."""
    return Path(os.environ.get("PIPELINES_CACHE") or user_cache_dir("privacy-pipelines")).expanduser()


def make_private(folder: Path) -> None:
    """Makes a folder and its missing parents, open to their owner alone. Existing folders keep their modes.

    Raises:
      OSError: it cannot be made.
    """
    for place in (*reversed(folder.parents), folder):
        if not place.exists():
            place.mkdir(mode=0o700, exist_ok=True)


def foreign_hand(path: Path) -> str | None:
    """Says who else may change the file at a path; None if only this user and root may.

    All folders above the file count: a user who may write to one of them could put another file there. A sticky
    folder, such as /tmp, does not count, because there only the owner of a file may replace it.

    Args:
      path: of an existing file or folder.
    """
    found = path.resolve()
    for place in (found, *found.parents):
        status = place.stat()
        if status.st_uid not in (0, os.geteuid()):
            return f"{place} belongs to user {status.st_uid}"
        sticky = place != found and status.st_mode & stat.S_ISVTX
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
            return f"{place} may be written by others"
    return None


VARIABLE = "PIPELINES_SCRATCH"


def temporary_folder(prefix: str) -> str:
    """Makes a new folder, open to its owner alone.

    Raises:
      UserError: the folder cannot be made.
    """
    try:
        return tempfile.mkdtemp(prefix=prefix)
    except OSError as error:
        raise UserError(
            f"no temporary folder can be made ({error}); set TMPDIR to a folder that you can write"
        ) from None


def scratch() -> str:
    """Returns the folder for scratch files. The first process that calls this makes it, and removes it at its end.

    Raises:
      UserError: the folder cannot be made.
    """
    if VARIABLE not in os.environ:
        os.environ[VARIABLE] = temporary_folder("privacy-pipelines-")
        atexit.register(shutil.rmtree, os.environ[VARIABLE], ignore_errors=True)
    return os.environ[VARIABLE]


def require_places() -> None:
    """Refuses to start if the folders that a run needs are missing.

    Raises:
      UserError: the working directory is gone, or TMPDIR cannot be made.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError("the working directory is gone; go to one that exists (cd), and start again") from None
    if folder := os.environ.get("TMPDIR"):
        require_folder("TMPDIR", folder)


def require_folder(name: str, folder: str) -> None:
    """Makes a folder, and refuses one that cannot be made or written to.

    Args:
      name: the setting that gives the folder.
      folder: its path.

    Raises:
      UserError: the folder cannot be made or written to.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(folder, os.W_OK) else "it is not writable"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise UserError(f"{name}={folder} cannot be used ({reason}); set {name} to a folder that can be written to")
