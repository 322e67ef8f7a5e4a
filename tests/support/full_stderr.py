"""Runs a program whose standard error is a full pipe that is never read.

`python -m tests.support.full_stderr COMMAND...`: a write of that program to standard
error that waits, waits for ever.
"""

from __future__ import annotations

import os
import sys


def fill_pipe() -> tuple[int, int]:
    """Return the reading and the writing end of a full pipe."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writing, True)
    return reading, writing


def main() -> None:
    """Replace this process by the command."""
    reading, writing = fill_pipe()
    # While the reading end is open somewhere, a write waits instead of failing.
    os.set_inheritable(reading, True)
    os.dup2(writing, 2)
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
