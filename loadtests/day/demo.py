"""The demo that the load is for: its addresses, and the bounds of a run.

The load talks to loopback only: pointed at somebody else's machine it refuses to run.
"""

from __future__ import annotations

import os
from argparse import Namespace
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from deploy.demo.installation import read_env

MAX_USERS = 50
#: A soak of a night, with the hour that it needs to warm up.
MAX_SECONDS = 13 * 3600
LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_NEEDED = ("ISSUER_URL", "GATEWAY_URL", "ADMIN_USERNAME", "ADMIN_PASSWORD")
#: The answers required before the load begins: 401 without a token.
_PROBES = (
    ("ISSUER_URL", "/.well-known/jwks.json", 200),
    ("GATEWAY_URL", "/", 401),
)
_NEXT_STEP = (
    "start `make up` in another terminal, wait for `gatehouse is up`, run again"
)


def demo_settings() -> dict[str, str]:
    """Return the names and values of demo.env.

    Raises:
        SystemExit: when nothing runs, or an address in it is not loopback.
    """
    path = demo_file()
    if not path.is_file():
        raise SystemExit(f"{path} is not there: {_NEXT_STEP}")
    settings = read_env(path)
    missing = [name for name in _NEEDED if name not in settings]
    if missing:
        raise SystemExit(f"{path} has no {', '.join(missing)}: {_NEXT_STEP}")
    for name, value in settings.items():
        if name.endswith("_URL") and urlsplit(value).hostname not in LOOPBACK:
            raise SystemExit(f"{name} is not loopback; this load is for the demo only")
    return settings


def require_stack() -> None:
    """Return when issuer and gateway answer as `make up` has them answer.

    Raises:
        SystemExit: naming the address that does not, and the next step.
    """
    settings = demo_settings()
    for name, path, status in _PROBES:
        url = settings[name]
        found = _probe(url + path)
        if found is None:
            raise SystemExit(
                f"nothing answers at {url} ({name} in {demo_file()}): {_NEXT_STEP}"
            )
        if found != status:
            raise SystemExit(
                f"{url}{path} answers {found} instead of {status} ({name} in "
                f"{demo_file()}): another program listens there. {_NEXT_STEP}"
            )


def require_bounds(options: Namespace) -> None:
    """Return when the options of a run are within the bounds.

    Raises:
        SystemExit: naming the option and its bound.
    """
    if (options.num_users or 0) > MAX_USERS:
        raise SystemExit(f"at most {MAX_USERS} users: this is a demo, not a benchmark")
    if not options.run_time or options.run_time > MAX_SECONDS:
        raise SystemExit(f"at most {MAX_SECONDS} seconds (-t)")
    if options.host and urlsplit(options.host).hostname not in LOOPBACK:
        raise SystemExit("only loopback: this load is for the demo")


def demo_file() -> Path:
    """Return where `make up` writes the addresses and the account."""
    return Path(os.environ.get("GATEHOUSE_VAR", "var")) / "demo.env"


def port_of(url: str) -> int:
    """Return the port of one of the demo's URLs."""
    return urlsplit(url).port or 80


def _probe(url: str) -> int | None:
    """Return the status of an answer; None without one."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()
