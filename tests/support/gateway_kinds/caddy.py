"""Caddy, both versions: a site for HTTP, and a second port for gRPC without TLS."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from tests.support.gateway_kinds.kind import GatewayKind, divide_times, replace_once


def _shorten_timeouts(folder: Path) -> None:
    config = folder / "Caddyfile"
    config.write_text(divide_times(config.read_text()))


def _show_request_id(folder: Path) -> None:
    shown = "header X-Shown-Id {http.request.uuid}"
    replace_once(folder / "Caddyfile", "\troute {", f"\troute {{\n\t\t{shown}")


def _give_up_soon(folder: Path) -> None:
    """A hundred probes without a verifier would take two minutes."""
    config = folder / "Caddyfile"
    written, wanted = "lb_try_duration 1200ms", "lb_try_duration 50ms"
    text = config.read_text()
    assert written in text
    config.write_text(text.replace(written, wanted))


def _serve_tls(folder: Path, key: Path, certificate: Path) -> None:
    config = folder / "Caddyfile"
    found = re.search(r"http://:(\d+), http://:\d+ \{\n", config.read_text())
    assert found
    site = f"https://:{found[1]} {{\n\ttls {certificate} {key}\n"
    replace_once(config, found[0], site)
    # A client that names no host gets the one certificate, too.
    replace_once(config, "\tadmin off\n", "\tadmin off\n\tdefault_sni gateway.test\n")


CADDY: Final = GatewayKind(
    process_sign="caddy run",
    shorten_timeouts=_shorten_timeouts,
    show_request_id=_show_request_id,
    # Go's server and Node.js, on a busy machine.
    leaves_refused_uploads_open=True,
    grpc_door="grpc_gateway",
    give_up_soon=_give_up_soon,
    serve_tls=_serve_tls,
)
