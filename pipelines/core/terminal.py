"""What a person reads at the terminal; none of it can fail a run."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

from tqdm import tqdm


class KeptStream:
    """A stream whose text is lost, and the loss remembered, once it cannot be written; else the stream itself.

    A reader who went away (`| head`) still raises BrokenPipeError: that one ends a run on purpose.
    """

    def __init__(self, stream: Any) -> None:
        self.lost: OSError | None = None
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes what can be written, and says that all was."""
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flushes what can be flushed."""
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
    """Makes both streams writable whatever they are, for this process and those that it starts."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next file that is opened would take its place, and its text
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        stream = getattr(sys, name) or open(os.devnull, "w")  # noqa: SIM115
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")
        setattr(sys, name, KeptStream(stream))


def lost_output() -> OSError | None:
    """Why standard output could not be written; None where it could."""
    return sys.stdout.lost if isinstance(sys.stdout, KeptStream) else None


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


@lru_cache(maxsize=256)
def remark(line: str) -> None:
    """Writes a line to standard error, once a process: the runs of a sweep mostly share it."""
    tqdm.write(f"note: {line}", file=sys.stderr)
