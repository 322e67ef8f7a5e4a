"""File descriptors run out in a real process: it reports so, and serves again
afterwards.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.support.issuer_harness import key_environment
from tests.support.issuer_over_http import served
from tests.support.issuer_simulator import FEED_TOKEN
from tests.support.processes import (
    PATIENCE,
    Process,
    ProcessFactory,
    free_port,
)
from tests.support.raw_http import send
from tests.support.tokens import AUDIENCE, ISSUER

pytestmark = pytest.mark.processes
#: The descriptors that the process may open: its own files, and some connections.
LIMIT = 120
#: The log line of the public port, which leaves what it cannot take to others.
REFUSED = "serving.cannot_accept"
LINE = '"descriptors.exhausted"'
#: Starts the command behind it with so many descriptors.
LIMITED = (
    "import os, resource, sys; "
    "resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2); "
    "os.execv(sys.argv[2], sys.argv[2:])"
)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[ProcessFactory]:
    factory = ProcessFactory(tmp_path)
    yield factory
    factory.stop_all()


class Operator:
    """Asks the operators' port on one connection, which is kept."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection(
            "127.0.0.1", port, timeout=PATIENCE
        )

    def close(self) -> None:
        self._connection.close()

    def readiness(self) -> tuple[int, str]:
        self._connection.request("GET", "/readyz")
        answer = self._connection.getresponse()
        body = json.loads(answer.read())
        reasons = body.get("reasons", [body.get("reason", "")])
        return answer.status, " ".join(reasons)


def start(
    processes: ProcessFactory, folder: Path, program: str, env: dict[str, str]
) -> Process:
    prefix = f"{program.upper()}_"
    admin = int(env[prefix + "ADMIN_BIND"].rpartition(":")[2])
    return processes.start(
        program,
        (
            *(sys.executable, "-c", LIMITED, str(LIMIT)),
            *(sys.executable, "-m", program),
        ),
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[2]), **env},
        cwd=folder,
        ready=lambda: send(admin, "GET", "/readyz").status == 200,
    )


def exhaust_and_recover(process: Process, port: int, admin: int, path: str) -> None:
    """Take every descriptor with connections, look, let them go, and look again."""
    operator = Operator(admin)
    with closing(operator), ExitStack() as crowd:
        assert operator.readiness() == (200, "")

        def is_full() -> bool:
            if REFUSED not in process.log():
                for _ in range(10):
                    peer = socket.create_connection(("127.0.0.1", port))
                    crowd.enter_context(peer)
            # Asked each time: a connection that is idle for long is closed.
            said = operator.readiness()
            is_said = said == (503, "descriptors_exhausted")
            log = process.log()
            return is_said and LINE in log and REFUSED in log

        process.wait_until(is_full, what="no descriptor is left")
        crowd.close()
        process.wait_until(
            lambda: operator.readiness() == (200, ""), what="it is ready again"
        )
    assert send(port, "GET", path).status in {200, 401}
    assert process.log().count(LINE) == 1
    assert process.log().count(REFUSED) <= 3, "at most every ten seconds"
    assert "Traceback" not in process.log()


def test_verifier_reports_exhausted_descriptors_and_recovers(
    processes: ProcessFactory, tmp_path: Path
) -> None:
    """R59: nothing was logged, and readiness answered 200."""
    port, admin = free_port(), free_port()
    with served() as (_, url):
        process = start(
            processes,
            tmp_path,
            "verifier",
            {
                "VERIFIER_ISSUER_URL": ISSUER,
                "VERIFIER_AUDIENCE": AUDIENCE,
                "VERIFIER_JWKS_URL": f"{url}/.well-known/jwks.json",
                "VERIFIER_FEED_URL": f"{url}/revocations",
                "VERIFIER_FEED_TOKEN": FEED_TOKEN,
                "VERIFIER_BIND": f"127.0.0.1:{port}",
                "VERIFIER_ADMIN_BIND": f"127.0.0.1:{admin}",
                "VERIFIER_WORKERS": "1",
            },
        )
        exhaust_and_recover(process, port, admin, "/verify/nginx")
        processes.stop_all()


def test_issuer_reports_exhausted_descriptors_and_recovers(
    processes: ProcessFactory, tmp_path: Path
) -> None:
    """R59."""
    port, admin = free_port(), free_port()
    process = start(
        processes,
        tmp_path,
        "issuer",
        {
            **key_environment(),
            "ISSUER_URL": f"http://127.0.0.1:{port}",
            "ISSUER_AUDIENCE": AUDIENCE,
            "ISSUER_DATABASE_URL": "sqlite+aiosqlite:///issuer.db",
            "ISSUER_FEED_TOKEN": FEED_TOKEN,
            "ISSUER_BIND": f"127.0.0.1:{port}",
            "ISSUER_ADMIN_BIND": f"127.0.0.1:{admin}",
        },
    )
    exhaust_and_recover(process, port, admin, "/.well-known/jwks.json")
