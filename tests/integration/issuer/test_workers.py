"""The issuer as real processes: one, and several workers over PostgreSQL."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.issuer_harness import FEED_TOKEN
from tests.support.pgbouncer import running_pgbouncer
from tests.support.postgres import PostgresServer
from tests.support.processes import (
    PATIENCE,
    Process,
    ProcessFactory,
    descendants,
    free_port,
    is_alive,
    wait_until,
)

pytestmark = pytest.mark.processes
#: Seconds for which a feed request asks to be held.
HELD = 60
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[ProcessFactory]:
    factory = ProcessFactory(tmp_path)
    yield factory
    factory.stop_all()


class RunningIssuer:
    """`python -m issuer` on free ports."""

    def __init__(self, database_url: str, **settings: str) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.admin_url = f"http://127.0.0.1:{free_port()}"
        key = "A" * 43
        self.env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "ISSUER_URL": self.url,
            "ISSUER_AUDIENCE": "api",
            "ISSUER_DATABASE_URL": database_url,
            "ISSUER_FEED_TOKEN": FEED_TOKEN,
            "ISSUER_KEY_ENCRYPTION_KEYS": f"k1:{key}",
            "ISSUER_PASSWORD_PEPPERS": f"p1:{key}",
            "ISSUER_REFRESH_KEYS": f"r1:{key}",
            "ISSUER_BIND": self.url.removeprefix("http://"),
            "ISSUER_ADMIN_BIND": self.admin_url.removeprefix("http://"),
            **settings,
        }

    def start(self, processes: ProcessFactory, directory: Path) -> Process:
        return processes.start(
            "issuer",
            [sys.executable, "-m", "issuer"],
            env={**self.env, "TMPDIR": str(directory)},
            cwd=directory,
            ready=self.is_ready,
        )

    def is_ready(self) -> bool:
        try:
            return self.get("/readyz", is_admin=True).status_code == 200
        except httpx.TransportError:
            return False

    def get(self, path: str, *, is_admin: bool = False) -> httpx.Response:
        # A new connection each time: any of the workers may take it.
        base = self.admin_url if is_admin else self.url
        return httpx.get(base + path, timeout=PATIENCE)

    def count(self, name: str, **labels: str) -> float:
        """Return the sum of the samples that carry `labels`."""
        text = self.get("/metrics", is_admin=True).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def count_jwks(self) -> float:
        return self.count(
            "gatehouse_issuer_http_requests_total", route="/.well-known/jwks.json"
        )


@pytest.fixture
def empty_postgres(postgres: PostgresServer) -> Iterator[str]:
    name = postgres.create_database()
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
def migrated_postgres(empty_postgres: str, tmp_path: Path) -> str:
    run_command(RunningIssuer(empty_postgres).env, tmp_path, "migrate")
    return empty_postgres


def run_command(
    env: Mapping[str, str], directory: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "issuer", *arguments],
        env=dict(env),
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )


def replace_worker(master: Process, death: signal.Signals) -> None:
    """End one worker and wait until the master has another in its place."""
    victim = min(descendants(master.pid))
    os.kill(victim, death)
    wait_until(
        lambda: not is_alive(victim)
        and len({*filter(is_alive, descendants(master.pid))}) == 2
    )


def follow_in_background(issuer: RunningIssuer, wait: int) -> threading.Thread:
    """Hold a feed request open, as a verifier does."""
    headers = {"Authorization": f"Bearer {FEED_TOKEN}"}
    snapshot = httpx.get(issuer.url + "/revocations/snapshot", headers=headers)
    query = {"epoch": snapshot.json()["epoch"], "after": 0, "wait": wait}

    def follow() -> None:
        httpx.get(
            issuer.url + "/revocations",
            params=query,
            headers=headers,
            timeout=wait + PATIENCE,
        )

    thread = threading.Thread(target=follow)
    thread.start()
    wait_until(lambda: issuer.count("gatehouse_issuer_feed_waiting") == 1)
    return thread


@pytest.mark.postgres
def test_two_workers_serve_behind_pgbouncer(
    processes: ProcessFactory, tmp_path: Path, postgres: PostgresServer
) -> None:
    """The real program: migrations, a command, and requests to both workers."""
    name = postgres.create_database()
    with running_pgbouncer(postgres) as pgbouncer:
        issuer = RunningIssuer(pgbouncer.url(name), ISSUER_WORKERS="2")
        for command in ("migrate", "rotate-keys"):
            done = run_command(issuer.env, tmp_path, command)
            assert done.returncode == 0, done.stderr
        process = issuer.start(processes, tmp_path)
        headers = {"Authorization": f"Bearer {FEED_TOKEN}"}
        for _ in range(20):
            answer = httpx.get(f"{issuer.url}/revocations/snapshot", headers=headers)
            assert answer.status_code == 200, answer.text
        process.wait_until(lambda: "wake_ups.polling" in process.log(), what="a line")
        assert "ISSUER_LISTEN_URL" in process.log()
        assert process.terminate() == 0
        assert issuer_log_is_clean(process.log())
    postgres.drop_database(name)


def issuer_log_is_clean(log: str) -> bool:
    return "background.failed" not in log and "prepared statement" not in log


# --- one process
# -----------------------------------------------------------------------


def test_one_process_serves_on_sqlite_out_of_nothing(
    processes: ProcessFactory, tmp_path: Path
) -> None:
    issuer = RunningIssuer("sqlite+aiosqlite:///var/issuer.db")
    process = issuer.start(processes, tmp_path)
    answer = issuer.get("/.well-known/jwks.json")
    assert len(answer.json()["keys"]) == 1
    assert "server" not in answer.headers
    assert "date" in answer.headers
    process.wait_until(lambda: "issuer.listening" in process.log(), what="its line")
    assert issuer.get("/healthz").status_code == 404, "operators' paths are elsewhere"
    assert issuer.get("/.well-known/jwks.json", is_admin=True).status_code == 404
    assert process.terminate() == 0


def test_stopping_does_not_wait_for_held_feed_requests(
    processes: ProcessFactory, tmp_path: Path
) -> None:
    issuer = RunningIssuer("sqlite+aiosqlite:///var/issuer.db")
    process = issuer.start(processes, tmp_path)
    held = follow_in_background(issuer, wait=HELD)
    assert process.terminate(deadline=HELD / 2) == 0
    held.join(PATIENCE)
    assert not held.is_alive()


def test_unix_sockets_are_served_and_a_stale_file_is_replaced(
    processes: ProcessFactory, tmp_path: Path
) -> None:
    public, admin = tmp_path / "public.sock", tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(public))
    issuer = RunningIssuer(
        "sqlite+aiosqlite:///var/issuer.db",
        ISSUER_BIND=f"unix:{public}",
        ISSUER_ADMIN_BIND=f"unix:{admin}",
    )

    def ask(path: Path, url: str) -> int:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            return client.get(f"http://issuer{url}").status_code

    def is_ready() -> bool:
        return admin.exists() and ask(admin, "/readyz") == 200

    processes.start(
        "issuer",
        [sys.executable, "-m", "issuer"],
        env=issuer.env,
        cwd=tmp_path,
        ready=is_ready,
    )
    assert ask(public, "/.well-known/jwks.json") == 200
    assert public.stat().st_mode & 0o777 == 0o660


def test_a_taken_port_stops_the_start_with_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        issuer = RunningIssuer("sqlite+aiosqlite:///var/issuer.db", ISSUER_BIND=bind)
        done = run_command(issuer.env, tmp_path)
    assert done.returncode == 2
    assert f"ISSUER_BIND: cannot listen on {bind}: " in done.stderr
    assert "Traceback" not in done.stderr


# --- several workers over PostgreSQL
# -----------------------------------------------------


@pytest.mark.postgres
def test_a_database_without_migrations_is_not_served(
    empty_postgres: str, tmp_path: Path
) -> None:
    done = run_command(RunningIssuer(empty_postgres).env, tmp_path)
    assert done.returncode == 1
    assert "python -m issuer migrate" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.postgres
def test_a_database_that_is_away_stops_the_start_with_a_sentence(
    tmp_path: Path,
) -> None:
    url = f"postgresql+asyncpg://nobody@127.0.0.1:{free_port()}/none"
    done = run_command(RunningIssuer(url).env, tmp_path)
    assert done.returncode == 1
    assert "refuses connections. Check that it runs" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.postgres
def test_counts_of_all_workers_add_up_and_outlive_a_worker(
    migrated_postgres: str, processes: ProcessFactory, tmp_path: Path
) -> None:
    """R39: any scraped worker reports all; a death loses and repeats nothing.

    No file is involved, also when prometheus_client's variable names a directory.
    """
    directory = tmp_path / "prometheus"
    directory.mkdir()
    issuer = RunningIssuer(
        migrated_postgres,
        ISSUER_WORKERS="2",
        PROMETHEUS_MULTIPROC_DIR=str(directory),
    )
    process = issuer.start(processes, tmp_path)
    seen = [0.0]

    def is_counted(count: int) -> bool:
        """Return whether all is counted, after at most a second or two; never more."""
        seen.append(issuer.count_jwks())
        assert seen[-2] <= seen[-1] <= count
        return seen[-1] == count

    for _ in range(40):
        assert issuer.get("/.well-known/jwks.json").status_code == 200
    wait_until(lambda: is_counted(40))

    assert len(descendants(process.pid)) == 2
    # Without warning, and in an orderly way that publishes the worker's last counts.
    for death, count in ((signal.SIGKILL, 50), (signal.SIGTERM, 60)):
        replace_worker(process, death)
        wait_until(issuer.is_ready)
        for _ in range(10):
            assert issuer.get("/.well-known/jwks.json").status_code == 200
        wait_until(partial(is_counted, count))
    assert process.terminate() == 0
    assert list(directory.iterdir()) == []
    assert not list(tmp_path.glob("gatehouse-issuer-metrics-*"))


@pytest.mark.postgres
def test_workers_are_replaced_on_the_same_port(
    migrated_postgres: str, processes: ProcessFactory, tmp_path: Path
) -> None:
    issuer = RunningIssuer(migrated_postgres, ISSUER_WORKERS="2")
    master = issuer.start(processes, tmp_path)
    old = descendants(master.pid)
    master.send_signal(signal.SIGUSR2)
    master.wait_until(
        lambda: len(descendants(master.pid) - old) == 2 and not any(map(is_alive, old)),
        what="two new workers instead of the old",
    )
    wait_until(issuer.is_ready, what="the new workers answer")
    assert issuer.get("/.well-known/jwks.json").status_code == 200


@pytest.mark.postgres
def test_workers_end_when_their_master_was_killed(
    migrated_postgres: str, processes: ProcessFactory, tmp_path: Path
) -> None:
    """A worker without a parent would hold the port with code that never changes."""
    issuer = RunningIssuer(migrated_postgres, ISSUER_WORKERS="2")
    process = issuer.start(processes, tmp_path)
    workers = descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait_for_exit()
    try:
        wait_until(lambda: not any(map(is_alive, workers)))
    finally:
        for pid in filter(is_alive, workers):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.postgres
def test_workers_stop_without_waiting_for_held_feed_requests(
    migrated_postgres: str, processes: ProcessFactory, tmp_path: Path
) -> None:
    issuer = RunningIssuer(migrated_postgres, ISSUER_WORKERS="2")
    process = issuer.start(processes, tmp_path)
    held = follow_in_background(issuer, wait=HELD)
    assert process.terminate(deadline=HELD / 2) == 0
    held.join(PATIENCE)
    assert not held.is_alive()
