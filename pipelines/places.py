"""The folders that a process stands in and writes scratch files to, before it starts."""

import os
from pathlib import Path

from pipelines.errors import UserError


def require_places() -> None:
    """Refuses to start where nothing could be written.

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
      name: of the setting that gives it.
      folder: its path.

    Raises:
      UserError: see above.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(folder, os.W_OK) else "it is not writable"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise UserError(f"{name}={folder} cannot be used ({reason}); set {name} to a folder that can be written to")
