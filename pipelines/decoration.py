"""What a result can do without: its failure is told in one line, and fails nothing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def decoration(name: str) -> Iterator[None]:
    """Tells of an exception in one line and goes on after the block.

    Args:
      name: of what is missing then.
    """
    try:
        yield
    except BrokenPipeError:  # an interruption of its own kind
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        tqdm.write(f"note: no {name} ({type(error).__name__}: {reason[:200]}); all else is there", file=sys.stderr)
