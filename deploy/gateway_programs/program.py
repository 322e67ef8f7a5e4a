"""What every gateway has in common: how it is found, and how its config is prepared.

Users copy the configs in deploy/gateways/, and the tests run them. Only the addresses
in a config are replaced: the gateway's own, the application's, the verifier's.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deploy.demo.addresses import Addresses

CONFIGS = Path(__file__).resolve().parents[1] / "gateways"
#: The ports that most configs name, as fields of `Addresses`.
DOORS = ("gateway", "app", "verifier", "second_verifier")

#: The literal ports in the configs, by the program that listens there.
_WRITTEN = Addresses(second_verifier=9001, second_grpc_verifier=9201)
#: Debian installs servers into a folder that is only in root's PATH.
_SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin")


class GatewayError(Exception):
    """A gateway cannot be started; the message has a remedy."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway ready to start: its name and the command that runs it."""

    name: str
    command: tuple[str, ...]


class GatewayProgram(Protocol):
    """One gateway, in one version.

    Attributes:
        name: what GATEHOUSE_UP_GATEWAY and the tests call it.
        dialect: the segment after `/verify/` in its config; empty if it does not ask.
        configs: the folder below deploy/gateways/.
        asks_over_grpc: it asks the verifier's gRPC port.
        asks_over_unix: its config names the verifier's unix socket.
        native: what `python -m verifier native` calls it, if it checks tokens by
            itself; empty if it asks.
        how_to_install: what to type, for a message.
    """

    @property
    def name(self) -> str: ...
    @property
    def dialect(self) -> str: ...
    @property
    def configs(self) -> str: ...
    @property
    def asks_over_grpc(self) -> bool: ...
    @property
    def asks_over_unix(self) -> bool: ...
    @property
    def native(self) -> str: ...
    @property
    def how_to_install(self) -> str: ...

    def find_binary(self) -> Path | None:
        """Return the path of its program, or None if it is not installed."""

    def prepare(self, binary: Path, folder: Path, addresses: Addresses) -> Gateway:
        """Put the addresses into the configs in `folder`, and return what to run.

        Raises:
            GatewayError: a config lacks an address.
        """


def find_in_system(program: str) -> Path | None:
    """Return a program of the system's packages; None without one.

    A program of the same name in this Python environment is another one: it may have
    another version.
    """
    ours = Path(sys.executable).parent
    places = [place for place in _path_folders() if place and Path(place) != ours]
    return _find(program, places)


def find_in_environment(program: str) -> Path | None:
    """Return a program of this Python environment, or else the system's."""
    return _find(program, [str(Path(sys.executable).parent), *_path_folders()])


def _path_folders() -> list[str]:
    return [*os.environ.get("PATH", "").split(os.pathsep), *_SYSTEM_FOLDERS]


def _find(program: str, places: Iterable[str]) -> Path | None:
    found = shutil.which(program, path=os.pathsep.join(places))
    return Path(found) if found else None


def put_addresses(
    config: Path, form: str, addresses: Addresses, doors: Sequence[str] = DOORS
) -> None:
    """Replace the literal ports of a shipped config.

    Args:
        config: the file to change.
        form: how the config writes an address, with `{}` for the port.
        addresses: the ports to put in.
        doors: the fields of `Addresses` that the config must name.

    Raises:
        GatewayError: the config does not name one of them.
    """
    texts = {
        form.format(getattr(_WRITTEN, door)): form.format(getattr(addresses, door))
        for door in doors
    }
    put_texts(config, texts)


def put_texts(config: Path, texts: Mapping[str, str]) -> None:
    """Replace literal texts of a shipped config.

    Args:
        config: the file to change.
        texts: what the config has, and what it gets.

    Raises:
        GatewayError: the config does not have one of them.
    """
    text = config.read_text()
    missing = [written for written in texts if written not in text]
    if missing:
        raise GatewayError(f"{config.name} does not name {', '.join(missing)}")
    # In one pass. With one replacement after the other, a new port could be mistaken
    # for the next literal.
    any_of_them = re.compile(rf"(?:{'|'.join(map(re.escape, texts))})(?!\d)")
    config.write_text(any_of_them.sub(lambda hit: texts[hit[0]], text))
