"""HAProxy, whose one listener speaks HTTP/1.1, HTTP/2 and gRPC."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from tests.support.gateway_kinds.kind import GatewayKind, divide_times, replace_once


def _shorten_timeouts(folder: Path) -> None:
    config = folder / "haproxy.cfg"
    config.write_text(divide_times(config.read_text()))


def _show_request_id(folder: Path) -> None:
    """Add the id to every answer, also to those of HAProxy itself."""
    config = folder / "haproxy.cfg"
    bind = next(line for line in config.read_text().splitlines() if " bind 127" in line)
    shown = f"{bind}\n    http-after-response set-header X-Shown-Id %[unique-id]"
    replace_once(config, bind, shown)


def _serve_tls(folder: Path, key: Path, certificate: Path) -> None:
    """Put a TLS listener into the config, as its comment says; `crt` is one file."""
    both = folder / "site.pem"
    both.write_text(certificate.read_text() + key.read_text())
    config = folder / "haproxy.cfg"
    bind = next(line for line in config.read_text().splitlines() if " bind 127" in line)
    replace_once(config, bind, f"{bind} ssl crt {both} alpn h2,http/1.1")


HAPROXY: Final = GatewayKind(
    passes_by_prefix=True,
    process_sign=f"{os.sep}haproxy ",
    shorten_timeouts=_shorten_timeouts,
    show_request_id=_show_request_id,
    # HAProxy 2.6 has one code for every answer before the end of a body. Newer ones
    # have NO_ERROR (src/mux_h2.c, h2_do_shutr, which quotes the RFC). The client has
    # the status by then, and no option changes it.
    cancels_unread_uploads=True,
    grpc_door="gateway",
    serve_tls=_serve_tls,
)
