"""Where things are kept that can be made again, and whom what lies there belongs to."""

import os
import stat
from pathlib import Path

from platformdirs import user_cache_dir


def cache_folder() -> Path:
    """Returns PIPELINES_CACHE, else the operating system's place for caches."""
    return Path(os.environ.get("PIPELINES_CACHE") or user_cache_dir("privacy-pipelines")).expanduser()


def make_private(folder: Path) -> None:
    """Makes a folder and what it lacks above it, for their owner alone. What exists stays as it is.

    Raises:
      OSError: it cannot be made.
    """
    for place in (*reversed(folder.parents), folder):
        if not place.exists():
            place.mkdir(mode=0o700, exist_ok=True)


def foreign_hand(path: Path) -> str | None:
    """Returns who else may change what a path leads to, in words; None where nobody but its user and root can.

    A folder counts with the file: who may write it may put another file there, and so does every folder above, unless
    it is sticky, such as /tmp, where only the owner of a file may replace it.

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
