"""Ports of the demo's programs: the default ports if they are free, else others."""

from __future__ import annotations

import socket
from dataclasses import dataclass, fields

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

    @staticmethod
    def url(port: int) -> str:
        """Return the base URL of a port, without trailing slash."""
        return f"http://{HOST}:{port}"


def choose_addresses() -> Addresses:
    """Return a free port for each program, the default one wherever it is free."""
    chosen: dict[str, int] = {}
    for field in fields(Addresses):
        preferred = int(str(field.default))
        if not preferred:
            continue
        port = preferred if _is_free(preferred) else _any_free_port()
        while port in chosen.values():
            port = _any_free_port()
        chosen[field.name] = port
    return Addresses(**chosen)


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
