"""The console command `gatehouse-verifier`."""

from __future__ import annotations

from shared import entry


def main() -> int:
    """Run the program and return its exit status."""
    return entry.run("verifier", _load)


def _load() -> entry.Main:
    from verifier.__main__ import main as run

    return run
