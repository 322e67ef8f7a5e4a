"""Traefik, whose one listener speaks HTTP/1.1, HTTP/2 and gRPC."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from tests.support.gateway_kinds.kind import GatewayKind, divide_times, replace_once


def _shorten_timeouts(folder: Path) -> None:
    for config in folder.glob("*.yml"):
        config.write_text(divide_times(config.read_text()))


def _show_request_id(folder: Path) -> None:
    """Traefik has none to show."""


def _serve_tls(folder: Path, key: Path, certificate: Path) -> None:
    """Switch on what stands in both files as a comment."""
    replace_once(folder / "traefik.yml", "# tls: {}", "tls: {}")
    dynamic = folder / "gatehouse.yml"
    written, _, commented = dynamic.read_text().partition("# tls:\n")
    block = ("# tls:\n" + commented).replace("# ", "")
    dynamic.write_text(written + block)
    replace_once(dynamic, "/etc/traefik/site.pem", str(certificate))
    replace_once(dynamic, "/etc/traefik/site.key", str(key))


TRAEFIK: Final = GatewayKind(
    passes_by_prefix=True,
    process_sign=f"{os.sep}traefik ",
    shorten_timeouts=_shorten_timeouts,
    show_request_id=_show_request_id,
    # No part of Traefik 3.7 makes one without a plugin. A refused request is found by
    # its X-Auth-Decision-Id, and by the client's Traceparent.
    gives_request_ids=False,
    # Go's ReverseProxy closes the body of a request before the answer is flushed, and
    # that waits for a read that has begun (net/http: Close takes the lock of Read).
    holds_early_answers=True,
    # The `url` of a server is http, https or h2c (tried with 3.7.15).
    can_ask_over_unix=False,
    # The listeners open before the providers are read (tried with 3.7.15).
    ready_path="/away",
    writes_canonical_paths=True,
    grpc_door="gateway",
    serve_tls=_serve_tls,
)
