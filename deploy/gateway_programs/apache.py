"""Apache httpd of the system, started from its config alone."""

from __future__ import annotations

import os
from pathlib import Path

from deploy.demo.addresses import HOST, Addresses
from deploy.gateway_programs.program import (
    Gateway,
    find_in_system,
    put_addresses,
)

_FORM = f"{HOST}:{{}}"
#: What the check connects with, by its place for the Lua of Debian's mod_lua.
_SOCKETS = Path("/usr/share/lua/5.3/socket.lua")
#: Where the config looks for the script.
_SCRIPTS = "LuaRoot /etc/apache2"
# Started by root, it gives up root, and with it the right to read a folder of root's.
_KEEP_RIGHTS = ("setpriv", "--securebits=+no_setuid_fixup")


class Apache:
    """Apache httpd with mod_lua, and LuaSocket."""

    name = "apache"
    dialect = "apache"
    configs = "apache"
    asks_over_grpc = False
    asks_over_unix = False
    native = ""
    how_to_install = "`apt-get install apache2 lua-socket`"

    def find_binary(self) -> Path | None:
        """Return the path of Apache, or None; without LuaSocket it is of no use."""
        return find_in_system("apache2") if _SOCKETS.exists() else None

    def prepare(self, binary: Path, folder: Path, addresses: Addresses) -> Gateway:
        """Put the addresses into the config and the script; the folder is the root."""
        put_addresses(folder / "gatehouse.conf", _FORM, addresses)
        verifiers = ("verifier", "second_verifier")
        put_addresses(folder / "gatehouse.lua", _FORM, addresses, verifiers)
        grpc_doors = ("grpc_gateway", "grpc_app")
        put_addresses(folder / "gatehouse_grpc.conf", _FORM, addresses, grpc_doors)
        for config in folder.glob("gatehouse*.conf"):
            text = config.read_text().replace(_SCRIPTS, f"LuaRoot {folder}")
            config.write_text(text)
        (folder / "run").mkdir(exist_ok=True)
        rights = _KEEP_RIGHTS if os.geteuid() == 0 else ()
        options = ("-d", str(folder), "-f", "httpd.conf", "-DFOREGROUND")
        return Gateway(self.name, (*rights, str(binary), *options))
