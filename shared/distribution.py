"""The distribution that holds these packages: its name, its version, its commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

#: The name for pip. `gatehouse` on the package index belongs to another project.
NAME: Final = "gatehouse-auth"
PACKAGES: Final = ("issuer", "verifier", "shared")
#: Written here and not read from the installed metadata: an image has the packages
#: alone.
VERSION: Final = "0.1.0"


def console_command(program: str) -> str:
    """Return the name of a program's console command."""
    return f"gatehouse-{program}"


def version_line(program: str) -> str:
    """Return the line that `--version` prints."""
    return f"{console_command(program)} {VERSION}"


def install_line(*extras: str) -> str:
    """Return the command that installs this release with extras.

    From the wheel, which has this name: the package index has no release of ours.
    """
    wheel = f"{NAME.replace('-', '_')}-{VERSION}-py3-none-any.whl"
    return f"pip install '{wheel}[{','.join(extras)}]'"


def invoked_as(program: str) -> str:
    """Return the command that started this process, for usage texts."""
    name = console_command(program)
    return name if Path(sys.argv[0]).stem == name else f"python -m {program}"


def missing_package(program: str, error: ModuleNotFoundError) -> str:
    """Return the message for a program whose packages are not installed.

    Args:
        program: `issuer` or `verifier`.
        error: raised by the import of the program.
    """
    return (
        f"{console_command(program)}: the package {error.name} is not installed. "
        f"Install the program with what it needs: {install_line(program)}"
    )
