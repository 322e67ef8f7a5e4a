"""HAProxy of the system, started from its config alone."""

from __future__ import annotations

from pathlib import Path

from deploy.demo.addresses import HOST, Addresses
from deploy.gateway_programs.native import HAPROXY, HAPROXY_FILES, MASTER_SOCKET
from deploy.gateway_programs.program import (
    DOORS,
    Gateway,
    find_in_system,
    put_addresses,
)

_FORM = f"{HOST}:{{}}"
#: The listener inside HAProxy by which it asks; one name on each machine.
_INNER_FORM = "abns@gatehouse-{}"


class Haproxy:
    """HAProxy with its own HTTP client, called from Lua."""

    name = "haproxy"
    dialect = "haproxy"
    configs = "haproxy"
    asks_over_grpc = False
    asks_over_unix = False
    native = ""
    how_to_install = "`apt-get install haproxy` (2.5 or newer, with Lua)"

    def find_binary(self) -> Path | None:
        """Return the path of HAProxy, or None."""
        return find_in_system("haproxy")

    def prepare(self, binary: Path, folder: Path, addresses: Addresses) -> Gateway:
        """Put the addresses into the one file; the script has none."""
        config = folder / "haproxy.cfg"
        put_addresses(config, _FORM, addresses, (*DOORS, "grpc_app"))
        put_addresses(config, _INNER_FORM, addresses, ("gateway",))
        # The script's path is relative; `default-path config` does not reach the copies
        # that threads after the first load.
        return Gateway(self.name, (str(binary), "-C", str(folder), "-f", str(config)))


class HaproxyNative:
    """HAProxy that checks tokens by itself, by the rules that the verifier writes."""

    name = "haproxy-native"
    dialect = ""
    configs = "haproxy-native"
    asks_over_grpc = False
    asks_over_unix = False
    native = HAPROXY
    how_to_install = "`apt-get install haproxy` (2.6 or newer, with PCRE2)"

    def find_binary(self) -> Path | None:
        """Return the path of HAProxy, or None."""
        return find_in_system("haproxy")

    def prepare(self, binary: Path, folder: Path, addresses: Addresses) -> Gateway:
        """Put the addresses into the one file; the verifier writes the other."""
        config = folder / "haproxy.cfg"
        put_addresses(config, _FORM, addresses, ("gateway", "app", "grpc_app"))
        meeting = Path(addresses.native_folder)
        command = (
            *(str(binary), "-W", "-S", f"{meeting / MASTER_SOCKET},mode,600"),
            # It exists once the verifier runs.
            *("-f", str(meeting / HAPROXY_FILES / "gatehouse.cfg")),
            *("-f", str(config)),
        )
        return Gateway(self.name, command)
