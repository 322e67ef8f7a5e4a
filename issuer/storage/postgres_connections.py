"""Opens connections to PostgreSQL: several servers, TLS, and a pooler in between.

All connections to PostgreSQL are opened here: those of the pool, of migrations and of
the listener.

A pooler such as PgBouncer in transaction mode gives each transaction another server
connection. A named prepared statement is then missing, or belongs to another client. So
every connection is tested for a pooler, and behind one statements have no name: they
are parsed in the same message that runs them.
"""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import asyncpg

from issuer.settings.database_url import HostPort, PostgresUrl

#: Returns one row when the server's process id differs from the one announced at the
#: start of the connection: a pooler announces its own number. It is sent with the
#: simple protocol and only the row count is read, so nothing is prepared.
_ASK_POOLED: Final = "SELECT 1 WHERE pg_backend_pid() <> {pid}"
_ONE_ROW: Final = "SELECT 1"


class ConnectError(OSError):
    """No server accepted a connection.

    Attributes:
        reasons: the result of each server, in the order of the attempts.
    """

    def __init__(
        self, reasons: Iterable[tuple[HostPort | None, BaseException]]
    ) -> None:
        self.reasons = tuple(reasons)
        super().__init__(
            "; ".join(f"{host}: {type(error).__name__}" for host, error in self.reasons)
        )


class TlsFileError(Exception):
    """A TLS file named in the URL cannot be used.

    Attributes:
        parameter: the URL parameter that names it.
        reason: what is wrong with the file, without its content.
    """

    def __init__(self, parameter: str, reason: str) -> None:
        self.parameter = parameter
        self.reason = reason
        super().__init__(f"{parameter}: {reason}")


class PostgresConnector:
    """Opens connections to the servers of one URL.

    Args:
        url: the servers and their parameters.
        statement_timeout: seconds a statement may take; 0: no limit.
    """

    def __init__(self, url: PostgresUrl, *, statement_timeout: float = 0.0) -> None:
        self.url: Final = url
        self._statement_timeout = statement_timeout
        self._is_pooled = False
        self._numbers = itertools.count(1)

    @property
    def is_pooled(self) -> bool:
        """Whether a pooler was ever seen between us and the server."""
        return self._is_pooled

    def name_statement(self) -> str:
        """Return the name for a statement to prepare: empty behind a pooler.

        A named statement is parsed and planned once for each connection.
        """
        return "" if self._is_pooled else f"gatehouse_{next(self._numbers)}"

    async def open(self) -> Any:
        """Return a new asyncpg connection to the first suitable server.

        Each server gets the whole `connect_timeout`: a silent one does not use up the
        time of the next.

        Raises:
            ConnectError: when none can be reached, or none has the session attributes.
            TlsFileError: when a file for TLS cannot be used.
            asyncpg.PostgresError: when a server refuses us.
        """
        check_tls_files(self.url)
        reasons: list[tuple[HostPort | None, BaseException]] = []
        hosts: tuple[HostPort | None, ...] = self.url.hosts or (None,)
        for host in hosts:
            try:
                return await self._open_at(host)
            except (
                OSError,
                asyncpg.CannotConnectNowError,
                asyncpg.TargetServerAttributeNotMatched,
            ) as error:
                reasons.append((host, error))
        raise ConnectError(reasons) from reasons[-1][1]

    async def _open_at(self, host: HostPort | None) -> Any:
        url = self.url
        connection = await asyncpg.connect(
            host=host.host if host else None,
            port=host.port if host else None,
            user=url.user,
            password=url.password,
            database=url.database,
            timeout=url.connect_timeout,
            command_timeout=self._statement_timeout or None,
            # SQLAlchemy caches prepared statements under our names. Statements of
            # asyncpg itself have no name and are parsed each time.
            statement_cache_size=0,
            server_settings={"application_name": url.application_name},
            target_session_attrs=url.target_session_attrs,
            **_build_tls(url),
        )
        try:
            pid = connection.get_server_pid()
            status = await connection.execute(
                _ASK_POOLED.format(pid=int(pid)), timeout=url.connect_timeout
            )
        except BaseException:
            connection.terminate()
            raise
        if status == _ONE_ROW:
            self._is_pooled = True
        return connection


def check_tls_files(url: PostgresUrl) -> None:
    """Return when every TLS file named in the URL can be used.

    They are read for each connection: the next connection uses a renewed certificate.

    Raises:
        TlsFileError: naming the parameter.
    """
    authorities = url.tls.get("sslrootcert", "system")
    if authorities != "system":
        _read("sslrootcert", authorities)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(authorities)
        except ssl.SSLError:
            raise TlsFileError("sslrootcert", "it holds no PEM certificate") from None
    if "sslcert" not in url.tls:
        return
    for parameter in ("sslcert", "sslkey"):
        if parameter in url.tls:
            _read(parameter, url.tls[parameter])
    try:
        _load_own_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), url)
    except ssl.SSLError:
        raise TlsFileError(
            "sslcert",
            "it and sslkey are not a PEM certificate and its key, unencrypted",
        ) from None


def _read(parameter: str, path: str) -> None:
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise TlsFileError(parameter, error.strerror or "it cannot be read") from None


def _load_own_certificate(context: ssl.SSLContext, url: PostgresUrl) -> None:
    # OpenSSL would ask for a password on the terminal.
    context.load_cert_chain(
        url.tls["sslcert"], url.tls.get("sslkey"), password=lambda: ""
    )


def _build_tls(url: PostgresUrl) -> dict[str, Any]:
    """Return asyncpg's arguments: it reads libpq's parameters only from a URL."""
    if url.tls.get("sslrootcert") != "system":
        query = urlencode(url.tls, quote_via=quote)
        return {"dsn": f"postgresql://?{query}"} if query else {}
    context = ssl.create_default_context()
    if "sslcert" in url.tls:
        _load_own_certificate(context, url)
    return {"ssl": context}
