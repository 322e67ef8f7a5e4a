"""An `/etc/hosts` of its own for one program, to be changed while it runs.

Needs the right to make mount namespaces. Without it a test is skipped, and in CI it
fails: a test that did not run must not look green.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

_BIND = 'mount --bind "$0" /etc/hosts && exec "$@"'


class HostsFile:
    """The addresses of names, for one program.

    Args:
        path: where to keep the file.

    Attributes:
        prefix: stands before the command of that program.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.prefix = ("unshare", "--mount", "sh", "-c", _BIND, str(path))
        self.say({})
        done = subprocess.run([*self.prefix, "true"], capture_output=True, check=False)
        if done.returncode != 0:
            message = f"mount namespaces cannot be made here: {done.stderr!r}"
            if os.environ.get("CI") == "true":
                pytest.fail(message)
            pytest.skip(message)

    def say(self, addresses: dict[str, str]) -> None:
        """Give names these addresses from now on, in the same file."""
        lines = [f"{address} {name}" for name, address in addresses.items()]
        self._path.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
