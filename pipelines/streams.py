"""Standard output and error that cannot fail a run: closed, full, or unable to spell a letter."""

import os
import sys
from contextlib import suppress
from typing import Any


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
