"""Users notice nothing while verifier and issuer are reloaded, replaced, drained and
killed.

Requests go on through real gateways on the shipped configs. Each act is done a few
times here, and a hundred times with `--proof-scale=100`. R48, R59, R60.
"""

from __future__ import annotations

import base64
import itertools
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support import issuer_gateways
from tests.support.installed_gateways import require
from tests.support.postgres import PostgresServer
from tests.support.processes import Process, ProcessFactory, free_port, is_listening
from tests.support.raw_http import send
from tests.support.stack import Stack
from tests.support.survival import GATEWAYS, Load, Request, Supervised, Tokens, repeat

pytestmark = [pytest.mark.processes, pytest.mark.proof]
#: Each once in CI, and a hundred times with `--proof-scale=100`.
ACTS = ("reload", "replace", "kill_worker", "restart")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("survival")
    factory = ProcessFactory(folder)
    try:
        yield Stack.start(folder, factory, VERIFIER_WORKERS="2")
    finally:
        factory.stop_all()


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessFactory]:
    made = ProcessFactory(tmp_path_factory.mktemp("survival-more"))
    yield made
    made.stop_all()


@pytest.fixture(scope="module")
def second_verifier(stack: Stack, factory: ProcessFactory) -> dict[str, int]:
    """The ports of another verifier, by field of `Addresses`; it is left alone."""
    port, admin, grpc = free_port(), free_port(), free_port()
    env = {
        **stack.installation.verifier_env,
        "VERIFIER_BIND": f"127.0.0.1:{port}",
        "VERIFIER_ADMIN_BIND": f"127.0.0.1:{admin}",
        "VERIFIER_GRPC_BIND": f"127.0.0.1:{grpc}",
        "VERIFIER_STATE_DIR": "",
    }
    start(factory, "verifier", env, admin, stack.installation.var)
    return {"second_verifier": port, "second_grpc_verifier": grpc}


def start(
    factory: ProcessFactory, name: str, env: Mapping[str, str], admin: int, cwd: Path
) -> Process:
    return factory.start(
        name,
        (sys.executable, "-m", name),
        env=env,
        cwd=cwd,
        ready=lambda: send(admin, "GET", "/readyz").status == 200,
    )


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("gateway", GATEWAYS)
def test_no_check_fails_while_a_verifier_is_handled(
    stack: Stack,
    factory: ProcessFactory,
    second_verifier: dict[str, int],
    gateway: str,
    act: str,
    proof_scale: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    require(gateway)
    running = stack.start_gateway(gateway, "survival", edit=None, **second_verifier)
    tokens, turns = Tokens(stack), itertools.count()

    def ask() -> Request:
        # Every fifth one is a token that no one issued.
        is_bad = next(turns) % 5 == 0
        token = "x.y.z" if is_bad else tokens()
        headers = {"Authorization": f"Bearer {token}"}
        return Request("GET", "/orders", headers, b"", 401 if is_bad else 200)

    addresses, env = stack.addresses, stack.installation.verifier_env
    verifier = Supervised(
        lambda: start(
            factory,
            "verifier",
            env,
            addresses.verifier_admin,
            stack.installation.var,
        ),
        stack.verifier,
    )
    load = Load(running.port, ask)
    failures = repeat(getattr(verifier, act), proof_scale, load)
    stack.adopt_verifier(verifier.process)
    with capsys.disabled():
        print(f"\n{gateway}: {act} x{proof_scale}: {load.summary()}", flush=True)
    assert failures == []


# --- the issuer
# ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def issuers(
    postgres: PostgresServer,
    factory: ProcessFactory,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Supervised, int, int]]:
    """Two issuers of two workers on one database; the first is to be handled."""
    name, tmp_path = postgres.create_database(), tmp_path_factory.mktemp("issuers")
    ports = [free_port() for _ in range(4)]
    key = "A" * 43
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "ISSUER_URL": f"http://127.0.0.1:{ports[0]}",
        "ISSUER_AUDIENCE": "api",
        "ISSUER_DATABASE_URL": postgres.url(name),
        "ISSUER_FEED_TOKEN": "f" * 40,
        "ISSUER_KEY_ENCRYPTION_KEYS": f"k1:{key}",
        "ISSUER_PASSWORD_PEPPERS": f"p1:{key}",
        "ISSUER_REFRESH_KEYS": f"r1:{key}",
        "ISSUER_WORKERS": "2",
        # Above the second that the gateways keep an idle connection.
        "ISSUER_DRAIN_IDLE": "2",
        "ISSUER_BIND": f"127.0.0.1:{ports[0]}",
        "ISSUER_ADMIN_BIND": f"127.0.0.1:{ports[1]}",
    }
    migrated = factory.start(
        "migrate", (sys.executable, "-m", "issuer", "migrate"), env=env, cwd=tmp_path
    )
    assert migrated.wait_for_exit() == 0, migrated.log()
    second = {
        **env,
        "ISSUER_BIND": f"127.0.0.1:{ports[2]}",
        "ISSUER_ADMIN_BIND": f"127.0.0.1:{ports[3]}",
    }

    def start_first() -> Process:
        return start(factory, "issuer", env, ports[1], tmp_path)

    running = start_first()
    other = start(factory, "issuer", second, ports[3], tmp_path)
    program = Supervised(start_first, running)
    yield program, ports[0], ports[2]
    for process in (program.process, other):
        process.terminate()
    postgres.drop_database(name)


@pytest.mark.postgres
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("gateway", issuer_gateways.NAMES)
def test_no_request_fails_while_an_issuer_is_handled(
    gateway: str,
    act: str,
    issuers: tuple[Supervised, int, int],
    factory: ProcessFactory,
    tmp_path: Path,
    proof_scale: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also requests that no gateway may repeat, but for those under way at a kill."""
    issuer, first, second = issuers
    port = free_port()
    command = issuer_gateways.prepare(
        gateway, tmp_path, port=port, issuers=(first, second)
    )
    factory.start(gateway, command, ready=lambda: is_listening(port))
    pair = base64.b64encode(b"nobody:wrong").decode()
    form = "application/x-www-form-urlencoded"
    turns = itertools.count()

    def ask() -> Request:
        if next(turns) % 3:
            return Request("GET", "/.well-known/jwks.json", {}, b"", 200)
        headers = {"Authorization": f"Basic {pair}", "Content-Type": form}
        # No gateway repeats a POST: one under way in a killed worker is lost.
        if act == "kill_worker":
            metadata = "/.well-known/oauth-authorization-server"
            return Request("GET", metadata, {}, b"", 200)
        body = b"grant_type=client_credentials"
        return Request("POST", "/oauth2/token", headers, body, 401)

    load = Load(port, ask, threads=3)
    failures = repeat(getattr(issuer, act), proof_scale, load)
    with capsys.disabled():
        print(
            f"\nissuer, {gateway}: {act} x{proof_scale}: {load.summary()}", flush=True
        )
    assert failures == []
