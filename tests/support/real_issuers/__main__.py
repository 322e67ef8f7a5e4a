"""Prepare the Keycloak of the tests: `python -m tests.support.real_issuers`."""

from __future__ import annotations

import sys

from tests.support.real_issuers.keycloak_home import NotPreparedError, prepare


def main() -> int:
    """Fill the cache; return the exit code."""
    try:
        print(f"Keycloak is prepared in {prepare()}")
    except NotPreparedError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
