"""What README.md and docs/*.md say to type is typed, and shows what they show."""

from __future__ import annotations

import os
import re
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from deploy.demo.installation import plain_environment, read_env, write_env
from deploy.demo.up import walk_through
from deploy.docs_site.quickstarts import GATEWAYS, Gateway
from tests.support.installed_gateways import require
from tests.support.make_up import MakeUp
from tests.support.page_commands import (
    ROOT,
    Block,
    inline_commands,
    pages,
    read_blocks,
    replace_words,
)
from tests.support.page_folder import beside_make_up, own_database, run, type_blocks
from tests.support.processes import ProcessFactory, free_port, is_listening, wait_until
from tests.support.quickstart import Followed, clone_beside, follow
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
    wait_for_keys(read_env(demo_env))
    factory = ProcessFactory(tmp_path)
    try:
        followed = follow(gateway, clone_beside(demo_env, tmp_path), factory)
        forged = [("X-Auth-Subject", "mallory"), bearer("mallory")]
        assert send(followed.port, "GET", "/", forged).status == 401
        if asks_a_socket:
            examine(followed, running, tmp_path / "desk")
    finally:
        factory.kill_all()


def wait_for_keys(demo: dict[str, str]) -> None:
    """Wait until the verifier knows the key that signs now.

    docs/emergency.md revokes one, and a verifier asks for its successor when it sees
    the first token of that.
    """
    socket = demo.get("VERIFIER_SOCKET")
    verifier = Path(socket) if socket else _port_of(demo["VERIFIER_URL"])
    form = b"grant_type=client_credentials"
    pair = b64encode(f"{demo['CLIENT_ID']}:{demo['CLIENT_SECRET']}".encode()).decode()
    headers = [
        ("Authorization", f"Basic {pair}"),
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Content-Length", str(len(form))),
    ]

    def passes() -> bool:
        issuer = _port_of(demo["ISSUER_URL"])
        token = send(issuer, "POST", "/oauth2/token", headers, form).json()
        shown = [bearer(token["access_token"])]
        return send(verifier, "GET", "/verify/nginx", shown).status == 200

    wait_until(passes, what="a new token passes")


def _port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def examine(followed: Followed, running: MakeUp, desk: Path) -> None:
    """Type what docs/gateways.md says about `doctor`, with the application stopped."""
    (block,) = (b for b in read_blocks("docs/gateways.md") if "doctor" in b.text)
    desk.mkdir()
    beside_make_up(desk, running)
    followed.app.kill()
    ports = {"8080": str(followed.port), "8081": str(followed.app_port)}
    type_blocks([block], desk, ports)


#: Pages whose commands change keys or files under a running issuer: they have an
#: installation of their own.
OWN_DATABASE = ("docs/rotating.md",)
SHARED = [
    page
    for page in pages()
    if not page.startswith(("README", "docs/quickstart-"))
    and any(not block.mark for block in read_blocks(page))
]


@pytest.mark.parametrize("page", SHARED)
def test_commands_of_a_page_work_as_written(
    page: str, running: MakeUp, tmp_path: Path
) -> None:
    blocks = [block for block in read_blocks(page) if not block.mark]
    if page in OWN_DATABASE:
        own_database(tmp_path)
        type_blocks(blocks, tmp_path)
    else:
        type_blocks(blocks, tmp_path, beside_make_up(tmp_path, running))


def test_questions_of_the_runbook_are_answered(running: MakeUp) -> None:
    """Those in sentences: to metrics, status and readiness."""
    demo = running.demo_env()
    asked = [
        command
        for command in inline_commands("docs/runbook.md")
        if command.startswith(("curl -s $ISSUER", "curl -s $VERIFIER"))
    ]
    assert len(asked) > 20
    variables = (
        f"ISSUER={demo['ISSUER_ADMIN_URL']}\nVERIFIER={demo['VERIFIER_ADMIN_URL']}\n"
    )
    for command in asked:
        # What must be zero, or is there only while something is wrong, is not shown.
        shown = command.removesuffix(" | grep -v ' 0.0'")
        done = run(variables + shown, running.var)
        assert done.returncode == 0, (command, done)
        assert done.stdout, command


@pytest.fixture
def factory(tmp_path: Path) -> Iterator[ProcessFactory]:
    started = ProcessFactory(tmp_path)
    yield started
    # A shell that is asked to stop leaves what it has started.
    started.kill_all()


def test_the_issuer_is_reached_over_tls_as_the_page_says(
    running: MakeUp, factory: ProcessFactory, tmp_path: Path
) -> None:
    certificate, check = read_blocks("docs/issuer-tls.md")
    page = (ROOT / "docs" / "issuer-tls.md").read_text()
    (server,) = re.findall(r"^ *```nginx\n(.*?)^ *```", page, re.M | re.S)
    type_blocks([certificate], tmp_path)
    port, issuer = free_port(), running.demo_env()["ISSUER_URL"]
    places = {
        "listen 443": f"listen 127.0.0.1:{port}",
        "/etc/nginx/": f"{tmp_path}/",
        "http://127.0.0.1:8000": issuer,
    }
    (tmp_path / "logs").mkdir()
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; pid {tmp_path}/pid; events {{}} error_log stderr;\n"
        f"http {{ access_log off; {replace_words(server, places)} }}\n"
    )
    binary = "/usr/sbin/nginx" if os.path.exists("/usr/sbin/nginx") else "nginx"
    factory.start(
        "nginx",
        (binary, "-p", f"{tmp_path}/", "-c", f"{tmp_path}/nginx.conf", "-e", "stderr"),
        ready=lambda: is_listening(port),
    )
    # The name leads to this machine, and the issuer here has a URL of its own.
    ways = {
        "curl -s": f"curl -s --connect-to auth.example.com:443:127.0.0.1:{port}",
        '"issuer":"https://auth.example.com"': f'"issuer":"{issuer}"',
    }
    type_blocks([check], tmp_path, ways)


def test_a_clients_secret_is_replaced_as_the_page_says(
    running: MakeUp, tmp_path: Path
) -> None:
    (block,) = (block for block in read_blocks("docs/rotating.md") if block.mark)
    words = beside_make_up(tmp_path, running)
    made = run("gatehouse-issuer create-client report\n", tmp_path).stdout
    client = re.search("^CLIENT_ID=.*$", made, re.M)
    assert client is not None, made
    known = f". var/demo.env\n{client[0]}\nTOKEN={words['eyJ...']}\n"
    type_blocks([Block("", 0, known, ""), block], tmp_path)
