"""The gateways there are, by name; a new one is one line here.

`python -m deploy.gateway_programs.registry` ends with 1 if `make up` must install Envoy
first.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from deploy.demo.addresses import Addresses
from deploy.gateway_programs.apache import Apache
from deploy.gateway_programs.caddy import CADDY, CADDY_2_11
from deploy.gateway_programs.envoy import Envoy, EnvoyGrpc, EnvoyNative
from deploy.gateway_programs.haproxy import Haproxy, HaproxyNative
from deploy.gateway_programs.nginx import Nginx
from deploy.gateway_programs.program import (
    CONFIGS,
    Gateway,
    GatewayError,
    GatewayProgram,
)
from deploy.gateway_programs.traefik import Traefik

_ALL: tuple[GatewayProgram, ...] = (
    Nginx(),
    Envoy(),
    EnvoyGrpc(),
    CADDY,
    CADDY_2_11,
    Haproxy(),
    Traefik(),
    Apache(),
    EnvoyNative(),
    HaproxyNative(),
)

PROGRAMS = {program.name: program for program in _ALL}
NAMES = tuple(PROGRAMS)
#: Those that ask the verifier; the others check tokens by themselves.
ASKING_NAMES = tuple(name for name in NAMES if not PROGRAMS[name].native)

#: Those that `make up` takes by itself, the preferred one first.
_DEFAULTS = ("nginx", "envoy")


def find_binary(name: str) -> Path | None:
    """Return the path of this gateway's program, or None if it is not installed."""
    return PROGRAMS[name].find_binary()


def choose(wanted: str | None) -> str:
    """Return the gateway to run: the wanted one, else nginx, else Envoy.

    Raises:
        GatewayError: none is installed, or the name is unknown.
    """
    if wanted and wanted not in NAMES:
        raise GatewayError(f"no such gateway: {wanted}; there are {', '.join(NAMES)}")
    candidates = (wanted,) if wanted else _DEFAULTS
    for name in candidates:
        if find_binary(name) is not None:
            return name
    raise GatewayError(
        f"{wanted or 'neither nginx nor Envoy'} is not installed here: "
        + " or ".join(PROGRAMS[name].how_to_install for name in candidates)
    )


def prepare(name: str, folder: Path, addresses: Addresses) -> Gateway:
    """Write the gateway's config into `folder` for these addresses.

    Raises:
        GatewayError: the gateway is not installed, or its config lacks an address.
    """
    program = PROGRAMS[name]
    binary = find_binary(name)
    if binary is None:
        raise GatewayError(f"{name} is not installed here: {program.how_to_install}")
    # Named twice, so that an unanswered check is retried on another connection.
    if not addresses.second_verifier:
        addresses = replace(addresses, second_verifier=addresses.verifier)
    if not addresses.second_grpc_verifier:
        addresses = replace(addresses, second_grpc_verifier=addresses.grpc_verifier)
    if not addresses.second_verifier_socket:
        socket = addresses.verifier_socket
        addresses = replace(addresses, second_verifier_socket=socket)
    folder.mkdir(parents=True, exist_ok=True)
    for source in (CONFIGS / program.configs).iterdir():
        if source.suffix != ".md":
            (folder / source.name).write_text(source.read_text())
    return program.prepare(binary, folder, addresses)


def main() -> int:
    """Return 1 if Envoy must be installed for the wanted gateway, else 0."""
    wanted = os.environ.get("GATEHOUSE_UP_GATEWAY") or None
    if wanted not in {None, "envoy"}:
        return 0
    try:
        choose(wanted)
    except GatewayError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
