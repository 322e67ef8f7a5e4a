"""Apache httpd, whose check is a script."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.support.gateway_kinds.kind import FACTOR, GatewayKind, replace_once

_MODULES: Final = "/usr/lib/apache2/modules"
_SITE: Final = "    ServerName localhost\n"


def _shorten_timeouts(folder: Path) -> None:
    """Divide the time, and Apache's own default of 60 s."""
    shorter = f"ProxyTimeout {3_600 // FACTOR}"
    for config in folder.glob("gatehouse*.conf"):
        replace_once(config, "ProxyTimeout 3600", shorter)
    _add_to_main(folder, f"Timeout {60 // FACTOR}")


def _show_request_id(folder: Path) -> None:
    _add_to_main(folder, f"LoadModule headers_module {_MODULES}/mod_headers.so")
    shown = "    Header always set X-Shown-Id %{UNIQUE_ID}e\n"
    replace_once(folder / "gatehouse.conf", _SITE, _SITE + shown)


def _switch_grpc_on(folder: Path) -> None:
    """Switch on the line that stands in httpd.conf as a comment."""
    line = "Include gatehouse_grpc.conf"
    replace_once(folder / "httpd.conf", f"# {line}", line)


def _serve_tls(folder: Path, key: Path, certificate: Path) -> None:
    lines = (
        "Protocols h2 http/1.1",
        "SSLEngine on",
        f"SSLCertificateFile {certificate}",
        f"SSLCertificateKeyFile {key}",
    )
    added = "".join(f"    {line}\n" for line in lines)
    replace_once(folder / "gatehouse.conf", _SITE, _SITE + added)


def _add_to_main(folder: Path, line: str) -> None:
    end = "\nInclude gatehouse.conf\n"
    replace_once(folder / "httpd.conf", end, f"\n{line}{end}")


APACHE: Final = GatewayKind(
    process_sign="apache2 -d",
    shorten_timeouts=_shorten_timeouts,
    show_request_id=_show_request_id,
    passes_problems=False,
    waits_for_uploads=True,
    grpc_door="grpc_gateway",
    switch_grpc_on=_switch_grpc_on,
    serve_tls=_serve_tls,
)
