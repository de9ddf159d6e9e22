"""Lines for whoever trains, beside the results.

They live in a module of their own: a launcher sends the job of `python -m pipelines.run` to other processes by value,
where what lies beside it in `__main__` is missing.
"""

import sys
from functools import lru_cache

from tqdm import tqdm


@lru_cache(maxsize=256)
def remark(line: str) -> None:
    """Writes a line to standard error, once a process: the runs of a sweep mostly share it."""
    tqdm.write(f"note: {line}", file=sys.stderr)
