"""A private PostgreSQL server for one test session, on a unix socket only.

Each test gets a database of its own, copied from a template that was built by the
migrations.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.processes import descendants, wait_until

_OWNER = "postgres"
#: Run for every test, as whoever runs the tests: to become somebody else Python would
#: copy this whole process first.
_FREQUENT = frozenset({"createdb", "dropdb"})
#: Bytes free in memory, from which on a server's files may live there.
_ROOM = 4 << 30


class PostgresMissingError(Exception):
    """PostgreSQL cannot be started here; the message says how to get it."""


class PostgresServer:
    """A cluster in a directory of its own; `stop()` removes both.

    Run as root it becomes user `postgres`, as PostgreSQL refuses to run as root.

    Args:
        is_durable: wait for the disk at each commit, as in production.
    """

    def __init__(self, *, is_durable: bool = False) -> None:
        self._is_durable = is_durable
        self._programs = find_programs()
        place = None if is_durable else _memory()
        self._directory = Path(tempfile.mkdtemp(prefix="gatehouse-pg-", dir=place))
        self._user: str | None = None
        if os.geteuid() == 0:
            self._user = _OWNER
            account = pwd.getpwnam(_OWNER)
            os.chown(self._directory, account.pw_uid, account.pw_gid)
        self._data = self._directory / "data"
        self._run(
            "initdb", "-D", str(self._data), "-U", _OWNER, "-A", "trust", "--no-sync"
        )
        self._process = self._start()
        wait_until(self._is_ready, deadline=30, what="PostgreSQL")

    def url(self, database: str) -> str:
        """Return the `ISSUER_DATABASE_URL` of one of its databases."""
        return f"postgresql+asyncpg://{_OWNER}@/{database}?host={self._directory}"

    def create_database(self, template: str = "template0") -> str:
        """Create a database as a copy of `template` and return its name."""
        name = f"test_{uuid.uuid4().hex}"
        host = str(self._directory)
        self._run(
            # Half the time of the default, and hundreds of tests need one.
            *("createdb", "--strategy", "file_copy"),
            *("-h", host, "-U", _OWNER, "-T", template, name),
        )
        return name

    def drop_database(self, name: str) -> None:
        """Drop the database, whoever is still connected."""
        self._run("dropdb", "--force", "-h", str(self._directory), "-U", _OWNER, name)

    def stop_immediately(self) -> None:
        """Stop as `pg_ctl stop -m immediate`: nothing is finished, nothing told."""
        self._run("pg_ctl", "stop", "-m", "immediate", "-D", str(self._data))
        self._process.wait(10)

    def start_again(self) -> None:
        """Start after a stop; return once it has recovered."""
        self._process = self._start()
        wait_until(self._is_ready, deadline=30, what="PostgreSQL")

    def back_up_files(self, name: str) -> None:
        """Copy the running cluster's files, as a nightly backup does."""
        host = str(self._directory)
        self._run(
            *("pg_basebackup", "-h", host, "-U", _OWNER, "-c", "fast"),
            *("-D", str(self._directory / name)),
        )

    def put_back_files(self, name: str) -> None:
        """Replace the stopped cluster's files by those of a backup."""
        shutil.rmtree(self._data)
        (self._directory / name).rename(self._data)

    def dump(self, database: str) -> None:
        """Dump a database; there is one dump of each name."""
        host = str(self._directory)
        self._run(
            *("pg_dump", "-h", host, "-U", _OWNER, "-Fc"),
            *("-f", str(self._directory / f"{database}.dump"), database),
        )

    def restore_dump(self, database: str) -> None:
        """Put the dump in the place of the database, whoever is connected."""
        host = str(self._directory)
        made = self.create_database()
        self._run(
            *("pg_restore", "-h", host, "-U", _OWNER, "-d", made),
            str(self._directory / f"{database}.dump"),
        )
        self.drop_database(database)
        rename = f'ALTER DATABASE "{made}" RENAME TO "{database}"'
        self._run("psql", "-h", host, "-U", _OWNER, "-d", "postgres", "-c", rename)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Within, the server and all its processes stand still."""
        pids = {self._process.pid, *descendants(self._process.pid)}
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        """Stop the server, whoever is connected, and remove its directory."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _start(self) -> subprocess.Popen[bytes]:
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._directory),
            "max_connections": "100",
        }
        if not self._is_durable:
            options |= {"fsync": "off", "full_page_writes": "off"}
        arguments = [f"--{name}={value}" for name, value in options.items()]
        with (self._directory / "log").open("wb") as log:
            return subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                **self._identity(),
            )

    def _is_ready(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError((self._directory / "log").read_text())
        done = subprocess.run(
            [
                shutil.which("psql") or self._programs / "psql",
                "-h",
                self._directory,
                "-U",
                _OWNER,
                "-d",
                "postgres",
                "-c",
                "SELECT 1",
            ],
            capture_output=True,
            check=False,
        )
        return done.returncode == 0

    def _run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs."""
        path = self._programs / program
        identity = {} if program in _FREQUENT else self._identity()
        done = subprocess.run(
            [path if path.exists() else str(shutil.which(program)), *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self._directory,
            **identity,
        )
        if done.returncode != 0:
            raise AssertionError(f"{program}: {done.stderr}")

    def _identity(self) -> dict[str, object]:
        if self._user is None:
            return {}
        account = pwd.getpwnam(self._user)
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _memory() -> Path | None:
    """Return a folder in memory with room for hundreds of databases, if there is one."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < _ROOM:
        return None
    return memory


def start_postgres() -> PostgresServer:
    """Return a running server.

    Without PostgreSQL on this machine the test is skipped, and in CI it fails: what
    nobody ran must not look green.
    """
    try:
        return PostgresServer()
    except PostgresMissingError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{error}; in CI it must be there")
        pytest.skip(str(error))


def find_programs() -> Path:
    """Return the directory that holds initdb and postgres.

    Raises:
        PostgresMissingError: when there is none.
    """
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda path: int(path.parts[-3]),
    )
    if not versions:
        raise PostgresMissingError(
            "PostgreSQL is needed (there is no initdb): apt-get install postgresql"
        )
    return versions[-1].parent
