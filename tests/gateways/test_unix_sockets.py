"""Every gateway asks over unix sockets, with the lines that its README gives.

One story for all of them: two verifiers, then the second alone, then none,
then the first again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.demo.addresses import Addresses
from deploy.demo.installation import APP_COMMAND, ROOT, plain_environment
from deploy.gateway_programs import registry
from deploy.gateway_programs.program import CONFIGS
from tests.support.gateway_kinds.envoy import ENVOY, ENVOY_GRPC
from tests.support.gateway_kinds.table import KINDS
from tests.support.installed_gateways import require
from tests.support.issuer_over_http import served
from tests.support.issuer_simulator import FEED_TOKEN
from tests.support.processes import (
    Process,
    ProcessFactory,
    free_port,
    is_listening,
    wait_until,
)
from tests.support.raw_http import RawAnswer, bearer, send
from tests.support.readme_edits import read_edits
from tests.support.tokens import AUDIENCE, ISSUER

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

#: Of requests with a token, of one without, and of one for the metadata.
DECIDED = (200, 200, 401, 200)
POLICIES = """\
[policies.default.resource_metadata]
resource = "https://tools.example.com/"
"""
NAMES = tuple(name for name in registry.NAMES if KINDS[name].can_ask_over_unix)
#: Where the READMEs and the config of nginx have the sockets of the two verifiers.
FOLDERS = ("/run/gatehouse/", "/run/gatehouse-second/")


@dataclass(frozen=True)
class Answers:
    """The answers of one gateway in one part of the story.

    Attributes:
        allowed: to requests with a token and a forged name.
        refused: to one without a token.
        document: to one for the resource metadata, which goes to a verifier unchecked.
    """

    allowed: tuple[RawAnswer, ...]
    refused: RawAnswer
    document: RawAnswer

    @property
    def statuses(self) -> tuple[int, ...]:
        answers = (*self.allowed, self.refused, self.document)
        return tuple(answer.status for answer in answers)


class Verifiers:
    """Two verifiers on unix sockets, HTTP and gRPC, each in a folder of its own."""

    def __init__(self, folder: Path, factory: ProcessFactory, issuer_url: str) -> None:
        self.folders = (folder / "1", folder / "2")
        self._factory = factory
        self._issuer_url = issuer_url
        for place in self.folders:
            place.mkdir()
            (place / "policies.toml").write_text(POLICIES)
        self.running = [self._begin(place) for place in self.folders]
        for place in self.folders:
            self._wait(place)

    def restart(self, number: int) -> None:
        """Start a killed one again."""
        self.running[number] = self._begin(self.folders[number])
        self._wait(self.folders[number])

    def _begin(self, place: Path) -> Process:
        own = {
            "ISSUER_URL": ISSUER,
            "AUDIENCE": AUDIENCE,
            "JWKS_URL": f"{self._issuer_url}/.well-known/jwks.json",
            "FEED_URL": f"{self._issuer_url}/revocations",
            "FEED_TOKEN": FEED_TOKEN,
            "BIND": f"unix:{place}/verifier.sock",
            "GRPC_BIND": f"unix:{place}/verifier-grpc.sock",
            "ADMIN_BIND": f"unix:{place}/admin.sock",
            "POLICY_FILE": f"{place}/policies.toml",
        }
        env = {f"VERIFIER_{name}": value for name, value in own.items()}
        command = (sys.executable, "-m", "verifier")
        env = plain_environment() | env
        return self._factory.start("verifier", command, env=env, cwd=place)

    @staticmethod
    def _wait(place: Path) -> None:
        admin = place / "admin.sock"
        wait_until(lambda: send(admin, "GET", "/readyz").status == 200, what="ready")


def start_gateway(
    name: str, folder: Path, factory: ProcessFactory, app: int, sockets: Verifiers
) -> int:
    """Start it with its README's lines; return the port where clients arrive."""
    # The verifiers' ports stay as the config has them: the README's lines name them.
    addresses = Addresses(
        gateway=free_port(),
        app=app,
        grpc_gateway=free_port(),
        grpc_app=free_port(),
        second_verifier=9001,
        second_grpc_verifier=9201,
        verifier_socket=f"{FOLDERS[0]}verifier.sock",
        second_verifier_socket=f"{FOLDERS[1]}verifier.sock",
    )
    prepared = registry.prepare(name, folder, addresses)
    program = registry.PROGRAMS[name]
    if not program.asks_over_unix:
        for edit in read_edits(program.configs, "Over a unix socket"):
            edit.apply(folder)
    for config in filter(Path.is_file, folder.iterdir()):
        text = config.read_text()
        for written, place in zip(FOLDERS, sockets.folders, strict=True):
            text = text.replace(written, f"{place}/")
        config.write_text(text)
    port = addresses.gateway
    factory.start(name, prepared.command, ready=lambda: is_listening(port))
    return port


def ask(port: int, token: str) -> Answers:
    shown = [bearer(token), ("X-Auth-User", "mallory"), ("X-Auth-Role", "mallory")]
    return Answers(
        tuple(send(port, "GET", "/orders", shown) for _ in range(2)),
        send(port, "GET", "/orders"),
        send(port, "GET", "/.well-known/oauth-protected-resource"),
    )


Story = dict[str, dict[str, Answers]]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """The answers by part of the story and gateway."""
    folder = tmp_path_factory.mktemp("unix")
    factory = ProcessFactory(folder)
    names = [name for name in NAMES if registry.find_binary(name) is not None]
    try:
        with served() as (issuer, url):
            app, token = free_port(), issuer.mint().decode()
            command = (*APP_COMMAND, "--port", str(app))
            factory.start("app", command, cwd=ROOT)
            verifiers = Verifiers(folder, factory, url)
            wait_until(lambda: is_listening(app), what="the application")
            ports = {
                name: start_gateway(name, folder / name, factory, app, verifiers)
                for name in names
            }

            def ask_all() -> dict[str, Answers]:
                # Caddy looks for a verifier for a second before it gives up.
                with ThreadPoolExecutor(len(ports)) as all_at_once:
                    asked = {
                        n: all_at_once.submit(ask, p, token) for n, p in ports.items()
                    }
                return {name: answers.result() for name, answers in asked.items()}

            heard = {"both": ask_all()}
            verifiers.running[0].kill()
            heard["second alone"] = ask_all()
            verifiers.running[1].kill()
            heard["none"] = ask_all()
            verifiers.restart(0)
            for name, port in ports.items():
                wait_until(
                    lambda port=port: ask(port, token).statuses == DECIDED,
                    what=f"{name} open again",
                )
            yield heard
    finally:
        factory.stop_all()


@pytest.mark.parametrize("name", NAMES)
def test_a_verifier_on_a_socket_decides_and_gives_the_identity(
    name: str, story: Story
) -> None:
    require(name)
    answers = story["both"][name]
    assert answers.statuses == DECIDED
    for answer in answers.allowed:
        headers = answer.json()["headers"]
        assert headers["x-auth-user"] == "alice"
        assert "mallory" not in str(headers)
    assert answers.refused.header("WWW-Authenticate") is not None


@pytest.mark.parametrize("name", NAMES)
def test_a_second_verifier_on_a_socket_answers_when_the_first_is_killed(
    name: str, story: Story
) -> None:
    require(name)
    answers = story["second alone"][name]
    assert answers.statuses[:-1] == DECIDED[:-1]
    # Envoy sends a request for a document only once.
    assert KINDS[name] in (ENVOY, ENVOY_GRPC) or answers.document.status == 200


@pytest.mark.parametrize("name", NAMES)
def test_nothing_passes_while_no_verifier_is_at_a_socket(
    name: str, story: Story
) -> None:
    """The story waits until all of them are open again."""
    require(name)
    answers = story["none"][name]
    assert answers.statuses[:-1] == (503, 503, 503)
    assert answers.document.status >= 500
    assert answers.refused.header("Retry-After") is not None


def test_the_lines_for_tcp_of_nginx_are_those_that_the_other_tests_run(
    tmp_path: Path,
) -> None:
    require("nginx")
    addresses = Addresses(second_verifier=9001)
    registry.prepare("nginx", tmp_path, addresses)
    run = (tmp_path / "gatehouse.conf").read_text()
    shipped = (CONFIGS / "nginx" / "gatehouse.conf").read_text()
    (tmp_path / "gatehouse.conf").write_text(shipped)
    for edit in read_edits("nginx", "Over TCP"):
        edit.apply(tmp_path)
    assert (tmp_path / "gatehouse.conf").read_text() == run


def test_traefik_alone_needs_a_port_and_its_readme_says_why() -> None:
    assert set(registry.ASKING_NAMES) - set(NAMES) == {"traefik"}
    readme = (CONFIGS / "traefik" / "README.md").read_text()
    assert "Traefik speaks to no unix socket: the `url` of a server" in readme
