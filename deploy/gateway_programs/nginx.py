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
    put_texts,
)

_FORM = f"{HOST}:{{}}"
#: Where the config has the verifier.
_SOCKET = "unix:/run/gatehouse/verifier.sock"


class Nginx:
    """nginx, which must be built with auth_request."""

    name = "nginx"
    dialect = "nginx"
    configs = "nginx"
    asks_over_grpc = False
    asks_over_unix = True
    native = ""
    how_to_install = "`apt-get install nginx-light` (it needs auth_request)"

    def find_binary(self) -> Path | None:
        """Return the path of an nginx with auth_request, or None."""
        found = find_in_system("nginx")
        return found if found and _has_auth_request(found) else None

    def prepare(self, binary: Path, folder: Path, addresses: Addresses) -> Gateway:
        """Put the addresses into both files; the prefix is the folder."""
        config = folder / "gatehouse.conf"
        put_addresses(config, _FORM, addresses, ("gateway", "app"))
        first = _place(addresses.verifier_socket, addresses.verifier)
        second = _place(addresses.second_verifier_socket, addresses.second_verifier)
        verifiers = {
            f"server {_SOCKET} max_fails=0;": f"server {first} max_fails=0;",
            f"server {_SOCKET} max_fails=0 backup;": f"server {second} max_fails=0 backup;",
        }
        put_texts(config, verifiers)
        grpc_doors = ("grpc_gateway", "grpc_app")
        put_addresses(folder / "gatehouse_grpc.conf", _FORM, addresses, grpc_doors)
        # nginx opens its compiled-in log directory's files before it reads the config.
        (folder / "logs").mkdir(exist_ok=True)
        command = (str(binary), "-p", f"{folder}/", "-e", "stderr", *_same_user())
        return Gateway(self.name, (*command, "-c", str(folder / "nginx.conf")))


def _place(path: str, port: int) -> str:
    return f"unix:{path}" if path else f"{HOST}:{port}"


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
