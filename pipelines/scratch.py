"""One temporary folder of this process and those that it starts, under a name that nobody can foresee.

Hydra writes a sweep's configuration where it is told to. A known name in a folder that all users share is one that
somebody else can take first, with links in it that lead to files of ours.
"""

import atexit
import os
import shutil
import tempfile

from omegaconf import OmegaConf

VARIABLE = "PIPELINES_SCRATCH"


def scratch() -> str:
    """Returns the folder, made on first use for its owner alone; it ends with the process that made it."""
    if VARIABLE not in os.environ:
        os.environ[VARIABLE] = tempfile.mkdtemp(prefix="privacy-pipelines-")
        atexit.register(shutil.rmtree, os.environ[VARIABLE], ignore_errors=True)
    return os.environ[VARIABLE]


OmegaConf.register_new_resolver("scratch", scratch, replace=True)
