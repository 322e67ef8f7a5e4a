"""nginx, whose gRPC is a second file with a listener of its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from tests.support.gateway_kinds.kind import (
    FACTOR,
    GatewayKind,
    divide_times,
    replace_once,
)
from tests.support.policy_page import blocks

_NAMES: Final = (
    "proxy_read_timeout",
    "proxy_send_timeout",
    "grpc_read_timeout",
    "grpc_send_timeout",
    "client_body_timeout",
)
#: What nginx has for a quiet stream when the config says nothing.
_DEFAULTS: Final = "\n    ".join(f"{name} {60_000 // FACTOR}ms;" for name in _NAMES)


def _shorten_timeouts(folder: Path) -> None:
    """Divide the times, and nginx' own defaults."""
    for config in folder.glob("*.conf"):
        text = config.read_text()
        if config.name == "nginx.conf":
            text = text.replace("http {", f"http {{\n    {_DEFAULTS}")
        config.write_text(divide_times(text))


def _show_request_id(folder: Path) -> None:
    for config in folder.glob("gatehouse*.conf"):
        text = re.sub(
            r"^( +)(listen .*;)$",
            r"\1\2\n\1add_header X-Shown-Id $request_id always;",
            config.read_text(),
            flags=re.M,
        )
        # A location with a header of its own has only that.
        text = re.sub(
            r"^( +)(add_header (?:WWW|Retry).*;)$",
            r"\1\2\n\1add_header X-Shown-Id $request_id always;",
            text,
            flags=re.M,
        )
        config.write_text(text)


def _switch_grpc_on(folder: Path) -> None:
    """Switch on the line that stands in nginx.conf as a comment."""
    line = "include gatehouse_grpc.conf;"
    replace_once(folder / "nginx.conf", f"# {line}", line)


def _add_log(folder: Path) -> None:
    config = folder / "gatehouse.conf"
    outer, server, inner = blocks("The log of nginx", "nginx")
    opening, check = "\nserver {\n", "        auth_request /_gatehouse;"
    replace_once(config, opening, f"\n{outer}{opening}{server}")
    replace_once(config, check, f"{inner}\n{check}")
    log = str(folder / "gatehouse.log")
    text = config.read_text()
    config.write_text(text.replace("/var/log/nginx/gatehouse.log", log))


def _serve_tls(folder: Path, key: Path, certificate: Path) -> None:
    """Put a TLS listener into the config, as its comment says."""
    config = folder / "gatehouse.conf"
    text = config.read_text()
    listen = next(line for line in text.splitlines() if "    listen " in line)
    with_tls = listen.replace(";", " ssl http2;")
    certificates = f"ssl_certificate {certificate}; ssl_certificate_key {key};"
    config.write_text(text.replace(listen, f"{with_tls}\n    {certificates}"))


NGINX: Final = GatewayKind(
    process_sign="nginx: master",
    shorten_timeouts=_shorten_timeouts,
    show_request_id=_show_request_id,
    drops_empty_headers=True,
    removes_by_prefix=False,
    passes_problems=False,
    logs_all_refusals=True,
    grpc_door="grpc_gateway",
    switch_grpc_on=_switch_grpc_on,
    add_log=_add_log,
    serve_tls=_serve_tls,
)
