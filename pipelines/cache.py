"""Where things are kept that can be made again."""

import os
from pathlib import Path

from platformdirs import user_cache_dir


def cache_folder() -> Path:
    """Returns PIPELINES_CACHE, else the operating system's place for caches."""
    return Path(os.environ.get("PIPELINES_CACHE") or user_cache_dir("privacy-pipelines")).expanduser()
