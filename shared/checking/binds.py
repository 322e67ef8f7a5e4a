"""Checks of the addresses to listen on, without listening."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Mapping
from typing import Final

from shared import health
from shared.checking.findings import Findings
from shared.configuration.addresses import TcpAddress, UnixAddress, parse_bind
from shared.listening import explain

_CHECK: Final = "ports.bind"
_MODE: Final = "ports.directory"


def check_binds(binds: Mapping[str, str], admin: str, findings: Findings) -> None:
    """Check that each address is free, or is that of this program, which runs.

    Args:
        binds: the addresses by their settings, without those that are not set.
        admin: the setting of the operators' port. A running program answers there, and
            has the other addresses too.
        findings: gets what was found.
    """
    runs = is_running(admin.partition("_")[0].lower(), binds[admin])
    for setting, bind in binds.items():
        address = parse_bind(bind)
        if isinstance(address, UnixAddress):
            _check_unix_directory(setting, address, findings)
        reason = _find_fault(address)
        if reason is None:
            findings.ok(_CHECK, setting, f"{bind} is free")
        elif reason.errno == errno.EADDRINUSE and runs:
            findings.ok(_CHECK, setting, f"{bind} is in use, and the program runs")
        else:
            found, _, remedy = explain(address, reason).partition("; ")
            findings.error(
                _CHECK,
                setting,
                f"cannot listen on {bind}: {found}",
                remedy or "choose another address",
            )


def is_running(program: str, bind: str) -> bool:
    """Return whether this program answers there; the other one has `/healthz`, too."""
    try:
        body = health.ask(bind, "/metrics")
    except (health.UnhealthyError, ValueError):
        return False
    return f"gatehouse_{program}_".encode() in body


def _find_fault(address: TcpAddress | UnixAddress) -> OSError | None:
    """Return the error that listening would raise now; None for none."""
    try:
        if isinstance(address, UnixAddress):
            _try_unix(address.path)
        else:
            _try_tcp(address)
    except OSError as error:
        return error
    return None


def _try_tcp(address: TcpAddress) -> None:
    """Bind as `shared.listening` does, and close; without listen(2) none connects."""
    found = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, _, _, _, place = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and address.host == "::":
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        probe.bind(place)


def _try_unix(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        directory = os.path.dirname(path)
        if not os.path.isdir(directory):
            raise
        if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        # A refused connection: its program died, and the next start removes it.
        if probe.connect_ex(path) != errno.ECONNREFUSED:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _check_unix_directory(
    setting: str, address: UnixAddress, findings: Findings
) -> None:
    """Warn of a directory in which every user can listen in our place."""
    directory = os.path.dirname(address.path)
    try:
        mode = os.stat(directory).st_mode
    except OSError:
        return  # `_find_fault` reports it
    if mode & stat.S_IWOTH:
        findings.warn(
            _MODE,
            setting,
            f"every user can make files in {directory}, and listen there instead",
            f"chmod o-w {directory}",
        )
    else:
        findings.ok(_MODE, setting, f"{directory} has mode {stat.S_IMODE(mode):04o}")
