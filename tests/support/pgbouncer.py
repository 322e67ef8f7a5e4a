"""PgBouncer before a PostgreSQL server, as Debian ships it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.postgres import PostgresServer
from tests.support.processes import free_port, is_listening, wait_until

_USER = "postgres"


class PgBouncer:
    """One that runs.

    Attributes:
        port: a loopback TCP port.
    """

    def __init__(self, port: int) -> None:
        self.port = port

    def url(self, database: str, query: str = "") -> str:
        """Return the `ISSUER_DATABASE_URL` of a database behind it."""
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{database}{query}"


@contextmanager
def running_pgbouncer(
    server: PostgresServer, options: Mapping[str, str] | None = None
) -> Iterator[PgBouncer]:
    """Run PgBouncer in transaction mode before every database of `server`.

    Run as root it becomes another user, as it refuses to run as root.

    Args:
        server: PostgreSQL, asked by its unix socket.
        options: of its configuration, over those that are set here.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI needs pgbouncer")
        pytest.skip("no pgbouncer here")
    port = free_port()
    settings = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "unix_socket_dir": "",
        "auth_type": "any",
        "pool_mode": "transaction",
        # Few server connections for many clients: each transaction gets another one.
        "default_pool_size": "3",
        "max_client_conn": "200",
        "admin_users": _USER,
        **(options or {}),
    }
    to = f"host={server.socket_directory} port={server.port} user={_USER}"
    lines = ["[databases]", f"* = {to}", "[pgbouncer]"]
    lines += [f"{name} = {value}" for name, value in settings.items()]
    folder = Path(tempfile.mkdtemp(prefix="gatehouse-pgbouncer-"))
    (folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
    identity = {}
    if os.geteuid() == 0:
        account = pwd.getpwnam(_USER)
        identity = {
            "user": account.pw_uid,
            "group": account.pw_gid,
            "extra_groups": [],
        }
        os.chown(folder, account.pw_uid, account.pw_gid)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, folder / "pgbouncer.ini"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            **identity,
        )
    try:
        wait_until(lambda: is_listening(port), deadline=30, what="PgBouncer")
        yield PgBouncer(port)
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)
