"""What README.md and docs/*.md say to type is typed, and shows what they show."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.demo.installation import plain_environment, read_env, write_env
from deploy.demo.up import walk_through
from deploy.docs_site.quickstarts import GATEWAYS, Gateway
from tests.support.installed_gateways import require
from tests.support.make_up import MakeUp
from tests.support.processes import ProcessFactory, free_port
from tests.support.quickstart import clone_beside, follow
from tests.support.raw_http import bearer, send
from tests.support.walk_through import check_steps, read_steps

pytestmark = pytest.mark.processes


@pytest.fixture(scope="session")
def printed(running: MakeUp) -> str:
    """The output until it was up; later requests do not change it."""
    return running.process.log()


@pytest.mark.usefixtures("printed")
def test_readme_walk_through_works_as_written(running: MakeUp) -> None:
    commands = walk_through()
    assert len(read_steps(commands)) >= 6
    check_steps(commands, running.var.parent)


def test_make_up_prints_the_walk_through_for_its_own_folder(
    running: MakeUp, printed: str
) -> None:
    assert f". {running.var}/demo.env" in printed
    assert '"$GATEWAY_URL/orders"' in printed
    assert printed.rstrip().endswith("gatehouse is up")


@pytest.fixture(scope="module")
def demo_env_with_a_port(
    running: MakeUp, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """demo.env as it is where `make up` runs a gateway that asks over TCP.

    A further verifier listens on a port; the one of nginx is on a socket.
    """
    folder = tmp_path_factory.mktemp("verifier")
    demo, made = running.demo_env(), read_env(running.var / "secrets.env")
    port, admin = free_port(), free_port()
    settings = {
        "VERIFIER_ISSUER_URL": demo["ISSUER_URL"],
        "VERIFIER_AUDIENCE": "gatehouse-demo",
        "VERIFIER_FEED_TOKEN": made["ISSUER_FEED_TOKEN"],
        "VERIFIER_BIND": f"127.0.0.1:{port}",
        "VERIFIER_ADMIN_BIND": f"127.0.0.1:{admin}",
    }
    factory = ProcessFactory(folder)
    try:
        factory.start(
            "verifier",
            (sys.executable, "-m", "verifier"),
            env=plain_environment() | settings,
            cwd=folder,
            ready=lambda: send(admin, "GET", "/readyz").status == 200,
        )
        demo.pop("VERIFIER_SOCKET", None)
        here = {
            "VERIFIER_URL": f"http://127.0.0.1:{port}",
            "VERIFIER_ADMIN_URL": f"http://127.0.0.1:{admin}",
        }
        yield write_env(folder / "demo.env", demo | here)
    finally:
        factory.stop_all()


@pytest.mark.parametrize("gateway", GATEWAYS, ids=lambda gateway: gateway.name)
def test_quickstart_protects_an_application(
    gateway: Gateway, running: MakeUp, demo_env_with_a_port: Path, tmp_path: Path
) -> None:
    require(gateway.name)
    asks_a_socket = gateway.name == "nginx"
    demo_env = running.var / "demo.env" if asks_a_socket else demo_env_with_a_port
    assert ("VERIFIER_SOCKET" in read_env(demo_env)) == asks_a_socket
    factory = ProcessFactory(tmp_path)
    try:
        port = follow(gateway, clone_beside(demo_env, tmp_path), factory)
        forged = [("X-Auth-Subject", "mallory"), bearer("mallory")]
        assert send(port, "GET", "/", forged).status == 401
    finally:
        factory.kill_all()
