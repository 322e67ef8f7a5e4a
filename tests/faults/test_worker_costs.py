"""The price of two workers: scrapes beside checks, and memory (R47, issue 12)."""

from __future__ import annotations

import os
import socket
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.issuer_harness import key_environment
from tests.support.issuer_over_http import served
from tests.support.postgres import PostgresServer
from tests.support.processes import ProcessFactory, free_port
from tests.support.raw_http import send
from tests.support.steady_traffic import Gate, a_check, compare, p99, start_verifier

pytestmark = [pytest.mark.processes, pytest.mark.alone]

CONNECTIONS = 200
#: Scrapes in a second, from all connections together.
RATE = 50
ROUNDS, ATTEMPTS = 5, 6
#: Seconds of one round.
ROUND = 2.0
#: p99 of checks beside scrapes, as a multiple of the one without.
LIMIT = 1.5
#: Megabytes of a worker (PSS).
LARGEST_WORKER = 50.0
#: The same of the issuer, where it is 47.5 to 49.5. What other programs share of the
#: libraries' files counts less, so a quiet machine shows more.
LARGEST_ISSUER_WORKER = 52.0
_SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"


class Scraper:
    """Scrapes at a steady pace over many kept connections, in a thread."""

    def __init__(self, port: int) -> None:
        self.answers = 0
        self._port = port
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Scraper:
        self._connections = [
            socket.create_connection(("127.0.0.1", self._port), 10)
            for _ in range(CONNECTIONS)
        ]
        self._thread.start()
        return self

    def __exit__(self, *of_error: object) -> None:
        self._is_over.set()
        self._thread.join()
        for connection in self._connections:
            connection.close()

    def _run(self) -> None:
        while not self._is_over.is_set():
            for connection in self._connections:
                began = time.monotonic()
                connection.sendall(_SCRAPE)
                head, _, body = connection.recv(65_536).partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 "), head
                length = int(head.lower().partition(b"content-length: ")[2].split()[0])
                while len(body) < length:
                    body += connection.recv(65_536)
                self.answers += 1
                left = 1 / RATE - (time.monotonic() - began)
                if self._is_over.wait(max(left, 0)):
                    return


@pytest.fixture
def gates(
    factory: ProcessFactory, tmp_path: Path
) -> Iterator[tuple[Gate, Gate, Scraper]]:
    """Two verifiers of two workers each, and a scraper of the first."""
    with served() as (issuer, url):
        token = issuer.mint()
        checks = a_check(token), a_check(token[:-8] + b"AAAAAAAA")
        started = []
        for name in ("scraped", "calm"):
            port, admin, process = start_verifier(
                factory, name, url, tmp_path, VERIFIER_WORKERS="2"
            )
            started.append((Gate(port, process, *checks), admin))
        (scraped, admin), (calm, _) = started
        yield scraped, calm, Scraper(admin)
        factory.stop_all()


def read_pss(pid: int) -> float:
    """Return the proportional set size of a process, megabytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line[:4] == "Pss:")


def test_scrapes_cost_checks_little_and_workers_are_small(
    gates: tuple[Gate, Gate, Scraper], capsys: pytest.CaptureFixture[str]
) -> None:
    """R47: `/metrics` is rendered once a second, on a loop of its own."""
    scraped, calm, scraper = gates
    with scraper:
        for _ in range(ATTEMPTS):
            # The median round: other programs disturb some of them.
            ratios = [compare((scraped, calm), ROUND, p99) for _ in range(ROUNDS)]
            if statistics.median(ratios) <= LIMIT:
                break
        sizes = [read_pss(pid) for pid in scraped.process.family()]
    with capsys.disabled():
        print(
            f"\n{RATE} scrapes a second on {CONNECTIONS} connections: p99 of checks "
            f"{statistics.median(ratios):.2f} times the one without; PSS of "
            f"supervisor and workers {', '.join(f'{size:.1f}' for size in sizes)} MB"
        )
    assert scraper.answers > CONNECTIONS
    assert statistics.median(ratios) <= LIMIT, ratios
    assert max(sizes) <= LARGEST_WORKER


@pytest.mark.postgres
def test_workers_of_the_issuer_are_small(
    postgres: PostgresServer,
    factory: ProcessFactory,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What no worker needs is not imported (zxcvbn's ranks, Alembic, httpx).

    What each would make at its first use is made before the fork, in shared memory.
    """
    name = postgres.create_database()
    port, admin = free_port(), free_port()
    env = os.environ | {
        **key_environment(),
        "ISSUER_URL": f"http://127.0.0.1:{port}",
        "ISSUER_AUDIENCE": "api",
        "ISSUER_FEED_TOKEN": "f" * 40,
        "ISSUER_DATABASE_URL": postgres.url(name),
        "ISSUER_BIND": f"127.0.0.1:{port}",
        "ISSUER_ADMIN_BIND": f"127.0.0.1:{admin}",
        "ISSUER_WORKERS": "2",
    }
    command = (sys.executable, "-m", "issuer")
    migrate = factory.start("migrate", (*command, "migrate"), env=env, cwd=tmp_path)
    assert migrate.wait_for_exit() == 0, migrate.log()
    issuer = factory.start(
        "issuer",
        command,
        env=env,
        cwd=tmp_path,
        ready=lambda: send(admin, "GET", "/readyz").status == 200,
    )
    for path in ("/.well-known/jwks.json", "/users"):
        for _ in range(200):
            send(port, "GET", path)
    sizes = [read_pss(pid) for pid in issuer.family() - {issuer.pid}]
    with capsys.disabled():
        shown = ", ".join(f"{size:.1f}" for size in sizes)
        print(f"\nPSS of the issuer's workers: {shown} MB")
    assert len(sizes) == 2
    assert max(sizes) <= LARGEST_ISSUER_WORKER, sizes
