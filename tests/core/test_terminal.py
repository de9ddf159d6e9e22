"""Standard output never fails a run, even if it is closed, full or unread."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from pipelines.core.process import exit_after

def main():
    for number in range(3000):
        print("± ε ≥", number)
    sys.stdout.flush()
    print("done", file=sys.stderr)
    return 0

exit_after(main)
"""


def outcome(redirection: str, **environment: str) -> tuple[int, str]:
    command = f'exec {sys.executable} -c "$PROGRAM" {redirection}'
    found = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, errors="replace", timeout=120,
        env={**os.environ, "PROGRAM": PROGRAM, **environment},
    )  # fmt: skip
    return found.returncode, found.stdout + found.stderr


def test_a_letter_that_the_terminal_lacks_is_replaced() -> None:
    code, text = outcome("", PYTHONIOENCODING="ascii")
    assert code == 0
    assert text.startswith("? ? ? 0\n")


@pytest.mark.parametrize(("redirection", "said"), [(">&-", "done\n"), (">&- 2>&-", ""), ("2>&- >/dev/null", "")])
def test_a_closed_stream_fails_nothing(redirection: str, said: str) -> None:
    assert outcome(redirection) == (0, said)


def test_a_full_stream_is_told_at_the_end() -> None:
    code, text = outcome(">/dev/full")
    assert code == 1
    assert text.startswith("done\nerror: standard output could not be written")
    assert len(text.splitlines()) == 2
