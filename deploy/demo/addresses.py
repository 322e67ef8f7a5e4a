"""Ports of the demo's programs: the default ports if they are free, else others."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Loopback TCP ports of the demo; the defaults are those of the programs."""

    gateway: int = 8080
    app: int = 8081
    issuer: int = 8000
    issuer_admin: int = 8100
    verifier: int = 9000
    verifier_admin: int = 9100
    grpc_gateway: int = 8082
    grpc_app: int = 8083
    #: by which a gateway asks itself, to reach a verifier
    inner_gateway: int = 8084
    grpc_verifier: int = 9200
    #: 0: there is none
    second_verifier: int = 0
    second_grpc_verifier: int = 0
    #: paths of unix sockets, for a gateway whose config names one; empty: the ports
    verifier_socket: str = ""
    second_verifier_socket: str = ""
    #: where a verifier and a gateway that checks tokens by itself meet; else empty
    native_folder: str = ""

    @staticmethod
    def url(port: int) -> str:
        """Return the base URL of a port, without trailing slash."""
        return f"http://{HOST}:{port}"


def choose_addresses() -> Addresses:
    """Return a free port for each program, the default one wherever it is free."""
    chosen: dict[str, Any] = {}
    for field in fields(Addresses):
        preferred = field.default
        if not isinstance(preferred, int) or not preferred:
            continue
        port = preferred if _is_free(preferred) else _any_free_port()
        while port in chosen.values():
            port = _any_free_port()
        chosen[field.name] = port
    return Addresses(**chosen)


def is_native_folder(path: str) -> bool:
    """Return whether a verifier and its gateway can meet in this folder.

    The path of a socket has at most 107 bytes (unix(7)). HAProxy makes the longest one:
    `master.sock`, with its process id and `.tmp` behind it.
    """
    return re.fullmatch(r"/[\w/.+-]{1,80}", path, re.ASCII) is not None


def choose_socket(folder: Path) -> str:
    """Return the path of the verifier's socket in a folder.

    It is empty if the path is longer than 107 bytes (unix(7)), or has characters that a
    gateway's config might read otherwise.
    """
    path = str(folder / "verifier.sock")
    return path if re.fullmatch(r"[\w/.+-]{1,107}", path, re.ASCII) else ""


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do. Otherwise a port in TIME_WAIT after `make up` would count
        # as used.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _any_free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
