"""nginx of the system, started from its config alone."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

from deploy.demo.addresses import HOST, Addresses
from deploy.gateway_programs.program import (
    Gateway,
    find_in_system,
    put_addresses,
)

_FORM = f"{HOST}:{{}}"


class Nginx:
    """nginx, which must be built with auth_request."""

    name = "nginx"
    dialect = "nginx"
    configs = "nginx"
    asks_over_grpc = False
    how_to_install = "`apt-get install nginx-light` (it needs auth_request)"

    def find_binary(self) -> Path | None:
        """Return the path of an nginx with auth_request, or None."""
        found = find_in_system("nginx")
        return found if found and _has_auth_request(found) else None

    def prepare(self, binary: Path, folder: Path, addresses: Addresses) -> Gateway:
        """Put the addresses into both files; the prefix is the folder."""
        put_addresses(folder / "gatehouse.conf", _FORM, addresses)
        grpc_doors = ("grpc_gateway", "grpc_app")
        put_addresses(folder / "gatehouse_grpc.conf", _FORM, addresses, grpc_doors)
        # nginx opens its compiled-in log directory's files before it reads the config.
        (folder / "logs").mkdir(exist_ok=True)
        command = (str(binary), "-p", f"{folder}/", "-e", "stderr", *_same_user())
        return Gateway(self.name, (*command, "-c", str(folder / "nginx.conf")))


def _same_user() -> tuple[str, ...]:
    """Keep root: started by root, nginx would run as `nobody`, without access to
    `var`.
    """
    if os.geteuid() != 0:
        return ()
    return ("-g", f"user {pwd.getpwuid(0).pw_name};")


def _has_auth_request(binary: Path) -> bool:
    built = subprocess.run([binary, "-V"], capture_output=True, text=True, check=False)
    return "http_auth_request_module" in built.stderr
