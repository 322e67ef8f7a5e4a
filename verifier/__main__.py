"""`python -m verifier` and the console command `gatehouse-verifier`."""

from __future__ import annotations

import sys

from shared import entry


def main() -> int:
    """Run the program and return its exit status."""
    return entry.run("verifier", _load)


def _load() -> entry.Main:
    from verifier.commands.main import main as run

    return run


if __name__ == "__main__":
    sys.exit(main())
