"""Types what a page docs/quickstart-*.md says, in a folder like a clone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from deploy.demo.installation import ROOT, plain_environment
from deploy.docs_site.quickstarts import Gateway, path_of
from deploy.gateway_programs import registry
from tests.support.gateway_readme import AS_ONE_USER
from tests.support.page_commands import Block, read_blocks, replace_words
from tests.support.processes import Process, ProcessFactory, free_port, is_listening
from tests.support.raw_http import send
from tests.support.walk_through import check_steps

#: The ports that the pages have: the gateway's, and the application's.
_GATEWAY: Final = "8090"
_APP: Final = "8091"
_PORTS: Final = (_GATEWAY, _APP, "8092", "8093", "8094")


class Followed(NamedTuple):
    """What runs after a page was followed.

    Attributes:
        port: where the gateway listens.
        app_port: where the application listens.
        app: the application.
    """

    port: int
    app_port: int
    app: Process


def clone_beside(demo_env: Path, folder: Path) -> Path:
    """Return a folder with what a clone has, and with this `demo.env` in var/."""
    clone = folder / "clone"
    (clone / "var").mkdir(parents=True)
    (clone / "var" / "demo.env").symlink_to(demo_env)
    for name in ("deploy", "verifier", "shared"):
        (clone / name).symlink_to(ROOT / name)
    return clone


def follow(gateway: Gateway, clone: Path, factory: ProcessFactory) -> Followed:
    """Type the page's commands from the application on, and check what they show.

    Args:
        gateway: whose page it is.
        clone: see `clone_beside`; its demo.env names a running issuer and verifier.
        factory: runs the application and the gateway, until the caller stops them.

    Returns:
        The ports, and the application.
    """
    page = str(path_of(gateway).relative_to(ROOT))
    _, up, app, config, start, check = read_blocks(page)
    assert up.text == f"GATEHOUSE_UP_GATEWAY={gateway.name} make up\n"
    ports = {port: str(free_port()) for port in _PORTS}
    environment = _environment(gateway, clone)

    app_port, port = int(ports[_APP]), int(ports[_GATEWAY])
    running = factory.start(
        "app",
        _typed(app.with_words(ports)),
        cwd=clone,
        env=environment,
        ready=lambda: is_listening(app_port),
    )
    _run(config, clone, environment)
    folder = clone / "var" / f"my-{gateway.name}"
    for file in folder.iterdir():
        file.write_text(replace_words(file.read_text(), ports))
    factory.start(
        gateway.name,
        _typed(start.text),
        cwd=folder,
        env=environment,
        # Traefik listens before it has read its routes.
        ready=lambda: send(port, "GET", "/").status != 404,
    )
    check_steps(check.with_words(ports), clone)
    return Followed(port, app_port, running)


def _environment(gateway: Gateway, clone: Path) -> dict[str, str]:
    """Return what a new user has, with this gateway's program in front of others."""
    binary = registry.find_binary(gateway.name)
    assert binary is not None
    programs = clone / "programs"
    programs.mkdir()
    (programs / binary.name).symlink_to(binary)
    environment = plain_environment()
    home = {"HOME": str(clone), "XDG_CONFIG_HOME": "", "XDG_DATA_HOME": ""}
    return environment | home | {"PATH": f"{programs}:{environment['PATH']}"}


def _typed(commands: str) -> tuple[str, ...]:
    rights = AS_ONE_USER if os.geteuid() == 0 else ()
    return (*rights, "sh", "-eu", "-c", commands)


def _run(block: Block, folder: Path, environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        ["sh", "-eu", "-c", block.text],
        cwd=folder,
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), (block, done.stderr)
