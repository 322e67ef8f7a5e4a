"""TLS to PostgreSQL as the database URL asks for it, against a real server.

The server is at 127.0.0.1 with a certificate for that address, and at `localhost`,
which is not in it. Users: `postgres` without a password, `issuer` by password over TLS
alone, `bearer` by certificate alone.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from issuer import migrations
from issuer.errors import DatabaseAwayError
from issuer.feed.wake_ups import WakeUps
from issuer.migrations import require_current_schema
from issuer.storage.db import Database
from tests.support.certificates import Authority
from tests.support.issuer_harness import make_settings, running_issuer
from tests.support.postgres import PostgresServer, start_postgres
from tests.support.processes import eventually

pytestmark = pytest.mark.postgres
PASSWORD = "p@ss/word"
HBA = """
local   all all                    trust
host    all postgres 127.0.0.1/32  trust
host    all postgres ::1/128       trust
hostssl all issuer   127.0.0.1/32  scram-sha-256
hostssl all bearer   127.0.0.1/32  cert
"""


class TlsServer:
    """A server with TLS, and files of several authorities."""

    def __init__(self, folder: Path) -> None:
        ours, other = Authority("ours"), Authority("another")
        server = ours.sign("db", "127.0.0.1")
        self.ca = _write(folder / "ca.pem", ours.certificate)
        self.wrong_ca = _write(folder / "other.pem", other.certificate)
        self.nonsense = _write(folder / "nonsense.pem", b"not a certificate")
        bearer = ours.sign("bearer")
        self.cert = _write(folder / "bearer.pem", bearer.certificate)
        self.key = _write(folder / "bearer.key", bearer.key)
        stranger = other.sign("bearer")
        self.stranger_cert = _write(folder / "stranger.pem", stranger.certificate)
        self.stranger_key = _write(folder / "stranger.key", stranger.key)
        self.postgres = start_postgres(
            has_port=True,
            hba=HBA,
            options={
                "ssl": "on",
                "ssl_cert_file": "server.crt",
                "ssl_key_file": "server.key",
                "ssl_ca_file": "ca.crt",
            },
            files={
                "server.crt": server.certificate,
                "server.key": server.key,
                "ca.crt": ours.certificate,
            },
        )
        self.name = self.postgres.create_database()
        self.postgres.run_sql(
            f"CREATE USER issuer PASSWORD '{PASSWORD}'",
            "CREATE USER bearer",
            f'ALTER DATABASE "{self.name}" OWNER TO issuer',
        )

    def url(
        self, query: str, *, user: str = "postgres", host: str = "127.0.0.1"
    ) -> str:
        port = self.postgres.port
        return f"postgresql://{user}@{host}:{port}/{self.name}{query}"


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    server = TlsServer(tmp_path_factory.mktemp("tls"))
    yield server
    server.postgres.stop()


async def ask_whether_encrypted(url: str) -> bool:
    database = Database(url, pool_size=1)
    try:
        async with database.read() as db:
            query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            return bool(await db.scalar(text(query)))
    finally:
        await database.close()


async def refused(url: str) -> str:
    with pytest.raises(DatabaseAwayError) as caught:
        await ask_whether_encrypted(url)
    assert caught.value.detail.startswith("ISSUER_DATABASE_URL: PostgreSQL at ")
    assert "p%40ss" not in caught.value.detail
    assert PASSWORD not in caught.value.detail
    return caught.value.detail


@pytest.mark.parametrize(
    ("query", "is_encrypted"),
    [
        ("", True),
        ("?sslmode=disable", False),
        ("?sslmode=allow", False),
        ("?sslmode=prefer", True),
        ("?sslmode=require", True),
        ("?sslmode=verify-ca&sslrootcert={ca}", True),
        ("?sslmode=verify-full&sslrootcert={ca}", True),
        # Without a mode libpq's default holds, and the authority is not asked.
        ("?sslrootcert={wrong_ca}", True),
    ],
)
async def test_each_mode_encrypts_as_in_libpq(
    server: TlsServer, query: str, is_encrypted: bool
) -> None:
    query = query.format_map(vars(server))
    assert await ask_whether_encrypted(server.url(query)) is is_encrypted


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_an_unknown_authority_is_refused(server: TlsServer, mode: str) -> None:
    """With `require` too, once an authority is named: as libpq."""
    shown = await refused(server.url(f"?sslmode={mode}&sslrootcert={server.wrong_ca}"))
    assert "shows a certificate that is refused" in shown
    assert "Check sslrootcert" in shown


async def test_another_name_is_refused_by_verify_full_alone(server: TlsServer) -> None:
    query = f"?sslmode={{}}&sslrootcert={server.ca}"
    named = server.url(query.format("verify-ca"), host="localhost")
    assert await ask_whether_encrypted(named)
    shown = await refused(server.url(query.format("verify-full"), host="localhost"))
    assert "localhost" in shown
    assert "name in the URL" in shown


async def test_public_authorities_are_those_of_the_system(
    server: TlsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.url("?sslrootcert=system")
    assert "certificate that is refused" in await refused(url)
    monkeypatch.setenv("SSL_CERT_FILE", str(server.ca))
    assert await ask_whether_encrypted(url)


async def test_a_password_is_sent_over_tls_alone(server: TlsServer) -> None:
    user = "issuer:p%40ss%2Fword"
    assert await ask_whether_encrypted(server.url("?sslmode=require", user=user))
    shown = await refused(server.url("?sslmode=disable", user=user))
    assert "no pg_hba.conf entry" in shown
    assert "sslmode=require" in shown
    shown = await refused(server.url("?sslmode=require", user="issuer:wrong"))
    assert 'password authentication failed for user "issuer"' in shown
    assert "Check user and password" in shown


async def test_a_client_certificate_authenticates_its_user(server: TlsServer) -> None:
    query = "?sslmode=verify-full&sslrootcert={ca}&sslcert={cert}&sslkey={key}"
    own = query.format_map(vars(server))
    assert await ask_whether_encrypted(server.url(own, user="bearer"))
    shown = await refused(server.url("?sslmode=require", user="bearer"))
    assert "certificate" in shown
    foreign = own.replace(str(server.cert), str(server.stranger_cert)).replace(
        str(server.key), str(server.stranger_key)
    )
    await refused(server.url(foreign, user="bearer"))
    # Of another's: `issuer` is asked for a password, not for a certificate.
    await refused(server.url(own, user="issuer:wrong"))


async def test_a_renewed_certificate_is_used_from_the_next_connection_on(
    server: TlsServer, tmp_path: Path
) -> None:
    """R59."""
    ca = _write(tmp_path / "ca.pem", server.wrong_ca.read_bytes())
    database = Database(server.url(f"?sslmode=verify-full&sslrootcert={ca}"))
    with pytest.raises(DatabaseAwayError):
        async with database.read() as db:
            await db.execute(text("SELECT 1"))
    ca.write_bytes(server.ca.read_bytes())
    async with database.read() as db:
        await db.execute(text("SELECT 1"))
    await database.close()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?sslmode=verify-full&sslrootcert=/none/ca.pem", "sslrootcert: No such file"),
        ("?sslmode=verify-full&sslrootcert={nonsense}", "holds no PEM certificate"),
        ("?sslmode=require&sslcert=/none/me.pem", "sslcert: No such file"),
        ("?sslmode=require&sslcert={cert}&sslkey=/none", "sslkey: No such file"),
        ("?sslmode=require&sslcert={cert}", "not a PEM certificate and its key"),
        ("?sslmode=require&sslcert={cert}&sslkey={stranger_key}", "and its key"),
    ],
)
async def test_a_file_that_cannot_be_used_is_named_by_its_parameter(
    server: TlsServer, query: str, message: str
) -> None:
    assert message in await refused(server.url(query.format_map(vars(server))))


async def test_a_server_without_tls_is_named_in_the_error(
    postgres_port: PostgresServer,
) -> None:
    url = postgres_port.tcp_url("postgres", "?sslmode=require")
    assert "has no TLS" in await refused(url)


@pytest.fixture(scope="module")
def postgres_port() -> Iterator[PostgresServer]:
    server = start_postgres(has_port=True)
    yield server
    server.stop()


async def test_everything_that_connects_goes_by_the_same_url(
    server: TlsServer,
) -> None:
    """Migrations, the pool and the listening connection: TLS or nothing."""
    url = server.url(
        f"?sslmode=verify-full&sslrootcert={server.ca}&application_name=gate-test",
        user="issuer:p%40ss%2Fword",
    )
    await asyncio.to_thread(migrations.upgrade, url)
    seen = (
        "SELECT string_agg(DISTINCT usename || ' ' || ssl::text, ',') FROM "
        "pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE application_name = "
        "'gate-test'"
    )
    async with running_issuer(make_settings(url)) as issuer:
        await require_current_schema(issuer.database)
        assert isinstance(issuer.issuer.feed.wake_ups, WakeUps)

        async def is_listening() -> bool:
            query = (
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = "
                "'gate-test' AND query LIKE 'LISTEN%'"
            )
            found = await asyncio.to_thread(server.postgres.run_sql, query)
            return found == "1"

        await eventually(is_listening)
        found = await asyncio.to_thread(server.postgres.run_sql, seen)
        assert found == "issuer true"
    assert os.environ.get("PGSSLMODE") is None, "the test is to show the URL's doing"
