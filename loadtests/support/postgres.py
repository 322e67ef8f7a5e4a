"""A private PostgreSQL server in a temporary directory, on a unix socket."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from loadtests.support.processes import PATIENCE, descendants, free_port, wait_until

_OWNER = "postgres"
#: Run for every test as the user of the tests: to change the user, Python would
#: copy this whole process first.
_FREQUENT = frozenset({"createdb", "dropdb"})
#: Bytes free in memory, from which on a server's files may live there.
_ROOM = 4 << 30


class PostgresMissingError(Exception):
    """PostgreSQL cannot be started here; the message has the remedy."""


class PostgresServer:
    """A cluster in a directory of its own; `stop()` removes both.

    Run as root it becomes user `postgres`, as PostgreSQL refuses to run as root.

    Args:
        is_durable: wait for the disk at each commit, as in production.
        has_port: also listen on a loopback TCP port.
        options: more of PostgreSQL's settings.
        hba: lines of `pg_hba.conf`; trust everybody when left out. The tests' own
            programs come by the socket and need `local all all trust`.
        files: written into the data directory, for the server's eyes alone.

    Attributes:
        port: also part of the unix socket's name.
    """

    def __init__(
        self,
        *,
        is_durable: bool = False,
        has_port: bool = False,
        options: Mapping[str, str] | None = None,
        hba: str | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        self._is_durable = is_durable
        self._options = dict(options or {})
        self.port = free_port() if has_port else 5432
        if has_port:
            self._options |= {"listen_addresses": "127.0.0.1", "port": str(self.port)}
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
        for name, content in (files or {}).items():
            self._write(name, content)
        if hba is not None:
            self._write("pg_hba.conf", hba.encode())
        self._process = self._start()
        wait_until(self._is_ready, what="PostgreSQL")

    @property
    def directory(self) -> Path:
        """Where its socket and its files are."""
        return self._directory

    def url(self, database: str, *, connect_timeout: int = 60) -> str:
        """Return the `ISSUER_DATABASE_URL` of one of its databases.

        Args:
            database: its name.
            connect_timeout: seconds; more than the product's own, for busy machines.
        """
        query = f"host={self._directory}&connect_timeout={connect_timeout}"
        return f"postgresql+asyncpg://{_OWNER}@/{database}?{query}"

    def tcp_url(self, database: str, query: str = "", user: str = _OWNER) -> str:
        """Return a URL of one of its databases by its TCP port."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}{query}"

    @property
    def socket_directory(self) -> Path:
        """Where its unix socket is."""
        return self._directory

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self._process.pid

    def run_sql(self, *statements: str, database: str = "postgres") -> str:
        """Run statements, each by itself, and return their output."""
        commands = [part for text in statements for part in ("-c", text)]
        return self._run(
            *("psql", "-h", str(self._directory), "-U", _OWNER, "-d", database),
            *("-p", str(self.port), "-v", "ON_ERROR_STOP=1", "-At", *commands),
        )

    def create_database(self, template: str = "template0") -> str:
        """Create a database as a copy of `template` and return its name."""
        name = f"test_{uuid.uuid4().hex}"
        host = str(self._directory)
        self._run(
            # Half the time of the default, and hundreds of tests need one.
            *("createdb", "--strategy", "file_copy"),
            *("-h", host, "-p", str(self.port), "-U", _OWNER, "-T", template, name),
        )
        return name

    def drop_database(self, name: str) -> None:
        """Drop the database, and end its connections."""
        self._run(
            *("dropdb", "--force", "-h", str(self._directory), "-p", str(self.port)),
            *("-U", _OWNER, name),
        )

    def stop_immediately(self) -> None:
        """Stop as `pg_ctl stop -m immediate`: nothing is finished or announced."""
        self._run("pg_ctl", "stop", "-m", "immediate", "-D", str(self._data))
        self._process.wait(PATIENCE)

    def start_again(self) -> None:
        """Start after a stop; return once it has recovered."""
        self._process = self._start()
        wait_until(self._is_ready, what="PostgreSQL")

    def make_standby(self) -> PostgresServer:
        """Return a standby that follows this server, which has a port."""
        standby = object.__new__(PostgresServer)
        standby.__dict__ |= self.__dict__
        standby._directory = Path(tempfile.mkdtemp(prefix="gatehouse-pg-"))
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(standby._directory, account.pw_uid, account.pw_gid)
        standby._data = standby._directory / "data"
        standby.port = free_port()
        standby._options = self._options | {"port": str(standby.port)}
        self._run(
            *("pg_basebackup", "-h", str(self._directory), "-p", str(self.port)),
            *("-U", _OWNER, "-c", "fast", "-R", "-D", str(standby._data)),
        )
        standby._process = standby._start()
        wait_until(standby._is_ready, deadline=30, what="the standby")
        return standby

    def wait_for_standby(self) -> None:
        """Return once the standby has all that is written here."""
        query = (
            "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn >= "
            "pg_current_wal_lsn()"
        )
        wait_until(lambda: self.run_sql(query) == "1", what="replication")

    def promote(self) -> None:
        """Make a standby a primary; return once it is."""
        self._run("pg_ctl", "promote", "-w", "-D", str(self._data))

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
        """Replace the database by the dump, and end its connections."""
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
        """Stop the server, end its connections, and remove its directory."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _start(self) -> subprocess.Popen[bytes]:
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._directory),
            # A busy machine still ends the connections of earlier tests when the next
            # begin.
            "max_connections": "400",
        }
        options |= self._options
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
                "-p",
                str(self.port),
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

    def _write(self, name: str, content: bytes) -> None:
        path = self._data / name
        path.write_bytes(content)
        path.chmod(0o600)
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(path, account.pw_uid, account.pw_gid)

    def _run(self, program: str, *arguments: str) -> str:
        """Run one of PostgreSQL's programs and return its output."""
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
        return done.stdout.strip()

    def _identity(self) -> dict[str, object]:
        if self._user is None:
            return {}
        account = pwd.getpwnam(self._user)
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _memory() -> Path | None:
    """Return a folder in memory with room for hundreds of databases, if there is
    one.
    """
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < _ROOM:
        return None
    return memory


def find_programs() -> Path:
    """Return the directory that holds initdb and postgres.

    Raises:
        PostgresMissingError: when there is none.
    """
    found = shutil.which("initdb")
    if found:
        # Where the link leads to, the other programs are the programs themselves, not
        # Debian's wrapper, which takes five times as long as `createdb`.
        return Path(found).resolve().parent
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda path: int(path.parts[-3]),
    )
    if not versions:
        raise PostgresMissingError(
            "PostgreSQL is needed (there is no initdb): apt-get install postgresql"
        )
    return versions[-1].parent
