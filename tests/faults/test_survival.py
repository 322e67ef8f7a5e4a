"""What users see while verifier and issuer are reloaded, replaced, drained and killed:
nothing.

Requests go on through real gateways on the shipped configs. Each act is done a few
times here, and a hundred times with `--proof-scale=100`. R48, R59, R60.
"""

from __future__ import annotations

import base64
import itertools
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from deploy.demo import gateways
from tests.support import issuer_gateways
from tests.support.postgres import PostgresServer
from tests.support.processes import Process, ProcessFactory, free_port, is_listening
from tests.support.raw_http import send
from tests.support.stack import Stack
from tests.support.survival import Ask, Load, Supervised

pytestmark = [pytest.mark.processes, pytest.mark.proof]
#: Of each act in CI; a hundred with `--proof-scale=100`.
TIMES = 1
ACTS = ("reload", "replace", "kill_worker", "restart")
#: Seconds a token is used: less than it lives.
TOKEN_SECONDS = 60.0


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
def second_verifier(stack: Stack, factory: ProcessFactory) -> int:
    """The port of another verifier; it is left alone."""
    port, admin = free_port(), free_port()
    env = {
        **stack.installation.verifier_env,
        "VERIFIER_BIND": f"127.0.0.1:{port}",
        "VERIFIER_ADMIN_BIND": f"127.0.0.1:{admin}",
        "VERIFIER_STATE_DIR": "",
    }
    start(factory, "verifier", env, admin, stack.installation.var)
    return port


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


class Tokens:
    """A live token of the demo's program, fetched anew before it ends."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._lock = threading.Lock()
        self._token, self._fetched_at = "", float("-inf")

    def __call__(self) -> str:
        with self._lock:
            if time.monotonic() - self._fetched_at > TOKEN_SECONDS:
                self._token = self._stack.client_credentials().access_token
                self._fetched_at = time.monotonic()
            return self._token


@pytest.mark.parametrize("gateway", gateways.NAMES)
def test_no_check_fails_while_a_verifier_is_handled(
    stack: Stack,
    factory: ProcessFactory,
    second_verifier: int,
    gateway: str,
    proof_scale: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    running = stack.start_gateway(gateway, "survival", second_verifier=second_verifier)
    tokens, turns = Tokens(stack), itertools.count()

    def ask() -> tuple[str, str, Mapping[str, str], bytes, int]:
        # Every fifth one is a token that no one issued.
        is_bad = next(turns) % 5 == 0
        token = "x.y.z" if is_bad else tokens()
        headers = {"Authorization": f"Bearer {token}"}
        return "GET", "/orders", headers, b"", 401 if is_bad else 200

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
    survive(verifier, running.port, ask, proof_scale, gateway, capsys)
    stack.adopt_verifier(verifier.process)


def survive(
    program: Supervised,
    port: int,
    ask: Ask,
    scale: int,
    gateway: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Do each act so many times under load; fail when a request failed."""
    failed: dict[str, list[str]] = {}
    for act in ACTS:
        with Load(port, ask) as load:
            for _ in range(TIMES * scale):
                getattr(program, act)()
        failed[act] = load.failures
        with capsys.disabled():
            count = load.answers.total()
            print(f"\n{gateway}: {act} x{TIMES * scale}: ", end="")
            print(f"{len(load.failures)} of {count} failed", flush=True)
    assert failed == {act: [] for act in ACTS}


# --- the issuer
# ---------------------------------------------------------------------------


@pytest.fixture
def issuers(
    postgres: PostgresServer, factory: ProcessFactory, tmp_path: Path
) -> Iterator[tuple[Supervised, int, int]]:
    """Two issuers of two workers on one database; the first is to be handled."""
    name = postgres.create_database()
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
@pytest.mark.parametrize("gateway", gateways.NAMES)
def test_no_request_fails_while_an_issuer_is_handled(
    gateway: str,
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

    def ask() -> tuple[str, str, Mapping[str, str], bytes, int]:
        if next(turns) % 3:
            return "GET", "/.well-known/jwks.json", {}, b"", 200
        headers = {"Authorization": f"Basic {pair}", "Content-Type": form}
        # No gateway repeats a POST: one under way in a killed worker is lost.
        if is_killing:
            return "GET", "/.well-known/oauth-authorization-server", {}, b"", 200
        body = b"grant_type=client_credentials"
        return "POST", "/oauth2/token", headers, body, 401

    failed: dict[str, list[str]] = {}
    for act in ACTS:
        is_killing = act == "kill_worker"
        with Load(port, ask, threads=3) as load:
            for _ in range(TIMES * proof_scale):
                getattr(issuer, act)()
        failed[act] = load.failures
        with capsys.disabled():
            print(f"\nissuer, {gateway}: {act} x{TIMES * proof_scale}: ", end="")
            print(f"{len(load.failures)} of {load.answers.total()} failed", flush=True)
    assert failed == {act: [] for act in ACTS}
