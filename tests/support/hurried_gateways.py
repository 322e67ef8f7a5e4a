"""A gateway's shipped config with every long time-out made shorter by one factor."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Final

from tests.support.processes import wait_until

_FACTOR: Final = 40
#: Seconds of quiet that a test waits: 80 s before the division.
_QUIET: Final = 2.0
_NGINX_NAMES: Final = (
    "proxy_read_timeout",
    "proxy_send_timeout",
    "grpc_read_timeout",
    "grpc_send_timeout",
    "client_body_timeout",
)
#: What nginx has for a quiet stream when the config says nothing; Envoy has as much, or
#: less.
_NGINX_DEFAULTS: Final = "\n    ".join(
    f"{name} {60_000 // _FACTOR}ms;" for name in _NGINX_NAMES
)


def shorten_timeouts(folder: Path) -> None:
    """Divide the times in the configs of this folder, and nginx' own defaults."""
    for config in [*folder.glob("*.conf"), *folder.glob("*.yaml")]:
        text = config.read_text()
        if config.name == "nginx.conf":
            text = text.replace("http {", f"http {{\n    {_NGINX_DEFAULTS}")
        config.write_text(re.sub(r"\b(\d+)(s|m|h)\b(?=[ ;}\n,])", _shorten, text))


def _shorten(written: re.Match[str]) -> str:
    seconds = int(written[1]) * {"s": 1, "m": 60, "h": 3_600}[written[2]]
    # Times for the verifier and the head of a request stay: a busy machine.
    return written[0] if seconds < 60 else f"{seconds // _FACTOR}s"


def be_quiet() -> None:
    """Let the time pass after which a default would end a stream."""
    begin = time.monotonic()
    wait_until(lambda: time.monotonic() - begin > _QUIET, deadline=60, what="quiet")
