"""The console commands: their part before the imports of a program."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from shared import health
from shared.distribution import PACKAGES, missing_package, version_line
from shared.serving.signals import hold_reloads_when_serving

#: A program's own `main`.
Main = Callable[[], int]


def run(program: str, load: Callable[[], Main]) -> int:
    """Run a program and return its exit status.

    Args:
        program: `issuer` or `verifier`.
        load: imports the program and returns its `main`.
    """
    if sys.argv[1:2] == [health.NAME]:
        # It runs every few seconds, so without the imports of the program.
        return health.main(program, sys.argv[2:])
    if sys.argv[1:] == ["--version"]:
        # It also works where only the other program's packages are installed.
        sys.stdout.write(version_line(program) + "\n")
        return 0
    hold_reloads_when_serving(sys.argv[1:])
    try:
        status = load()()
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # What reads the output has ended, as `| head` does. Python would write the rest
        # once more at its exit, and fail with a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ModuleNotFoundError as error:
        # Every installation has this command, but its imports come with an extra.
        if (error.name or "").partition(".")[0] in PACKAGES:
            raise
        sys.stderr.write(missing_package(program, error) + "\n")
        return 1
