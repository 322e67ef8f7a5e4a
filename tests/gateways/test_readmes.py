"""Each README of deploy/gateways, followed word for word in an empty folder."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.demo.addresses import Addresses
from deploy.demo.installation import ROOT, plain_environment
from deploy.gateway_programs import registry
from deploy.gateway_programs.program import CONFIGS
from tests.support.gateway_kinds.table import KINDS
from tests.support.gateway_readme import (
    SOCKETS,
    Places,
    Readme,
    follow,
    read_readme,
    start_command,
)
from tests.support.installed_gateways import require
from tests.support.native_writer import writer_settings
from tests.support.processes import ProcessFactory, free_port
from tests.support.raw_http import bearer, send
from tests.support.stack import Login, Stack
from tests.support.walk_through import check_steps

pytestmark = pytest.mark.processes

#: The ports that a README has, by the field of `Addresses`: those of the stack, and
#: those that are the gateway's own.
STACK = ("app", "verifier", "grpc_verifier")
OWN = ("gateway", "inner_gateway", "grpc_gateway", "grpc_app")
FORGED = "mallory"


@pytest.fixture(scope="module")
def readmes() -> dict[str, Readme]:
    programs = registry.PROGRAMS.values()
    return {p.name: read_readme(CONFIGS / p.configs / "README.md") for p in programs}


@pytest.fixture(scope="module")
def sockets(stack: Stack, readmes: dict[str, Readme]) -> Iterator[str]:
    """The folder of the verifier's socket, with one if a config ships with it."""
    # The path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory() as folder:
        factory = ProcessFactory(Path(folder))
        lines = [line for readme in readmes.values() for line in readme.lines]
        try:
            if any(SOCKETS in line.text for line in lines):
                start_verifier_on(Path(folder) / "verifier.sock", factory, stack)
            yield f"{folder}/"
        finally:
            factory.stop_all()


def start_verifier_on(socket: Path, factory: ProcessFactory, stack: Stack) -> None:
    admin = free_port()
    settings = {
        "VERIFIER_BIND": f"unix:{socket}",
        "VERIFIER_ADMIN_BIND": f"127.0.0.1:{admin}",
        "VERIFIER_GRPC_BIND": "",
        "VERIFIER_STATE_DIR": "",
    }
    factory.start(
        "verifier-on-a-socket",
        (sys.executable, "-m", "verifier"),
        env={**stack.installation.verifier_env, **settings},
        cwd=socket.parent,
        ready=lambda: send(admin, "GET", "/readyz").status == 200,
    )


@pytest.fixture
def places(stack: Stack, sockets: str) -> Places:
    ours = {door: getattr(stack.addresses, door) for door in STACK}
    ours |= {door: free_port() for door in OWN}
    ships = Addresses()
    ports = {getattr(ships, door): port for door, port in ours.items()}
    return Places(ports, sockets)


def shell_environment(name: str, folder: Path) -> dict[str, str]:
    """Return what a new user has, with this gateway's program in front of others."""
    binary = registry.find_binary(name)
    assert binary is not None
    programs = folder / "programs"
    programs.mkdir()
    (programs / binary.name).symlink_to(binary)
    environment = plain_environment()
    path = [str(programs), str(Path(sys.executable).parent), environment["PATH"]]
    home = {"HOME": str(folder), "XDG_CONFIG_HOME": "", "XDG_DATA_HOME": ""}
    return environment | home | {"PATH": ":".join(path), "PYTHONPATH": str(ROOT)}


def writer_environment(name: str, stack: Stack, folder: Path) -> dict[str, str]:
    """Return the settings of a verifier, for a README that starts one."""
    if not registry.PROGRAMS[name].native:
        return {}
    settings = writer_settings(str(folder), free_port())
    env = {**stack.installation.verifier_env, **settings}
    return {n: value for n, value in env.items() if n.startswith("VERIFIER_")}


@pytest.fixture
def empty_folder() -> Iterator[Path]:
    """A folder with a short path: READMEs put unix sockets into it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.parametrize("name", registry.NAMES)
def test_readme_works_as_written(
    name: str,
    readmes: dict[str, Readme],
    places: Places,
    stack: Stack,
    session_login: Login,
    empty_folder: Path,
    tmp_path: Path,
) -> None:
    require(name)
    readme, folder = readmes[name], empty_folder
    environment = shell_environment(name, tmp_path)
    follow(readme, folder, places, environment)
    environment |= writer_environment(name, stack, folder)

    port = places.ports[Addresses().gateway]
    token = bearer(session_login.access_token)
    factory = ProcessFactory(tmp_path)
    try:
        factory.start(
            name,
            start_command(readme),
            cwd=folder,
            env=environment,
            # Traefik listens before it has read its routes; what checks tokens by
            # itself, before it has keys.
            ready=lambda: send(port, "GET", "/", [token]).status == 200,
        )
        shown = f"TOKEN={session_login.access_token}\n"
        check_steps(shown + places.put_into(readme.check), folder)
        assert_identity_is_the_verified_one(name, port, session_login)
    finally:
        factory.kill_all()


def assert_identity_is_the_verified_one(name: str, port: int, login: Login) -> None:
    forged = [(header, FORGED) for header in login.identity]
    aliases = [(header.replace("-", "_"), FORGED) for header in login.identity]
    sent = [bearer(login.access_token), *forged, *aliases]
    answer = send(port, "GET", "/orders", sent)
    assert answer.status == 200
    seen = answer.json()["headers"]
    assert FORGED not in answer.body.decode()
    for header, value in KINDS[name].differences.identity(login.identity).items():
        assert seen.get(header, "") == value, header
    refused = send(port, "GET", "/orders", [*forged, *aliases])
    assert refused.status == 401
    assert (refused.header("WWW-Authenticate") or "").startswith("Bearer")
