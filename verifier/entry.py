"""The console command `gatehouse-verifier`."""

from __future__ import annotations

import sys

from shared import health
from shared.distribution import PACKAGES, missing_package


def main() -> int:
    """Run the program and return its exit status."""
    if sys.argv[1:2] == [health.NAME]:
        # Asked every few seconds, so without the imports of the program.
        return health.main("verifier", sys.argv[2:])
    try:
        from verifier.__main__ import main as run

        return run()
    except ModuleNotFoundError as error:
        # Every installation has this command, but what it imports comes with an extra.
        if (error.name or "").partition(".")[0] in PACKAGES:
            raise
        sys.stderr.write(missing_package("verifier", error) + "\n")
        return 1
