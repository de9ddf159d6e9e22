"""One temporary folder of this process and those that it starts, under a name that nobody can foresee.

Hydra writes a sweep's configuration where it is told to, and PyTorch looks for notes to its compiler. A known name in a
folder that all users share is one that somebody else can take first, with links in it that lead to files of ours.
"""

import atexit
import os
import shutil
import tempfile

from pipelines.errors import UserError

VARIABLE = "PIPELINES_SCRATCH"


def temporary_folder(prefix: str) -> str:
    """Makes a new folder for its owner alone.

    Raises:
      UserError: there is no place for it.
    """
    try:
        return tempfile.mkdtemp(prefix=prefix)
    except OSError as error:
        raise UserError(
            f"no temporary folder can be made ({error}); set TMPDIR to a folder that you can write"
        ) from None


def scratch() -> str:
    """Returns the folder, made on first use; it ends with the process that made it.

    Raises:
      UserError: there is no place for it.
    """
    if VARIABLE not in os.environ:
        os.environ[VARIABLE] = temporary_folder("privacy-pipelines-")
        atexit.register(shutil.rmtree, os.environ[VARIABLE], ignore_errors=True)
    return os.environ[VARIABLE]
