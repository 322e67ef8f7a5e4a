"""`python -m issuer` and the console command `gatehouse-issuer`."""

from __future__ import annotations

import sys

from shared import entry


def main() -> int:
    """Run the program and return its exit status."""
    return entry.run("issuer", _load)


def _load() -> entry.Main:
    from issuer.commands.main import main as run

    return run


if __name__ == "__main__":
    sys.exit(main())
