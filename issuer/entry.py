"""The console command `gatehouse-issuer`."""

from __future__ import annotations

import sys

from shared.distribution import PACKAGES, missing_package


def main() -> int:
    """Run the program and return its exit status."""
    try:
        from issuer.__main__ import main as run

        return run()
    except ModuleNotFoundError as error:
        # Every installation has this command, but what it imports comes with an extra.
        if (error.name or "").partition(".")[0] in PACKAGES:
            raise
        sys.stderr.write(missing_package("issuer", error) + "\n")
        return 1
