"""Output to the terminal that never fails a run."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

from tqdm import tqdm


class KeptStream:
    """Wraps a stream: after a first error, it drops all text and remembers the error.

    A reader that closed the pipe (`| head`) still raises BrokenPipeError, which ends a run on purpose.
    """

    def __init__(self, stream: Any) -> None:
        self.lost: OSError | None = None
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes the text if the stream works, and always reports that all of it was written."""
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flushes the stream if it works."""
        self._attempt(self._stream.flush)

    def _attempt(self, action: Any) -> None:
        try:
            action()
        except BrokenPipeError:
            raise
        except OSError as error:
            self.lost = self.lost or error
            self._stream = open(os.devnull, "w")  # noqa: SIM115

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def keep_streams() -> None:
    """Makes standard output and standard error writable in any case, for this process and its children."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next opened file would get this descriptor, and so our text
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        stream = getattr(sys, name) or open(os.devnull, "w")  # noqa: SIM115
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")
        setattr(sys, name, KeptStream(stream))


def lost_output() -> OSError | None:
    """Returns why standard output could not be written; None if it could."""
    return sys.stdout.lost if isinstance(sys.stdout, KeptStream) else None


@contextmanager
def decoration(name: str) -> Iterator[None]:
    """Reports an exception of the block in one line, and goes on after the block.

    Args:
      name: what is missing after an exception.
    """
    try:
        yield
    except BrokenPipeError:  # the reader closed the pipe, which ends the run
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        tqdm.write(f"note: no {name} ({type(error).__name__}: {reason[:200]}); all else is there", file=sys.stderr)


@lru_cache(maxsize=256)
def remark(line: str) -> None:
    """Writes a note to standard error, once in each process, because the runs of a sweep often share it."""
    tqdm.write(f"note: {line}", file=sys.stderr)
