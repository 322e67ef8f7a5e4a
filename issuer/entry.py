"""The console command `gatehouse-issuer`."""

from __future__ import annotations

from shared import entry


def main() -> int:
    """Run the program and return its exit status."""
    return entry.run("issuer", _load)


def _load() -> entry.Main:
    from issuer.__main__ import main as run

    return run
