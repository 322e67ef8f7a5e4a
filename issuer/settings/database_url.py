"""Checks and parses `ISSUER_DATABASE_URL` and `ISSUER_LISTEN_URL`.

Pure. Errors never repeat any part of a URL, because it may have a password: a parameter
is named only when it is one of libpq's own words.

`parse_postgres_url` is over 40 lines: it is one check of the URL after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from issuer.settings.database_url_parameters import (
    SUPPORTED,
    TLS_PARAMETERS,
    explain_unsupported,
)
from shared.configuration.addresses import parse_host, parse_ipv6

_POSTGRES_SCHEMES: Final = ("postgresql+asyncpg", "postgresql", "postgres")
_SQLITE_SCHEMES: Final = ("sqlite+aiosqlite", "sqlite")
_DEFAULT_PORT: Final = 5432
_HOST_RULE: Final = (
    "a host is malformed; write HOST:PORT, [IPV6]:PORT or /DIRECTORY, with commas between"
)
_MAX_PORT: Final = 65_535
#: Seconds one host may take to accept a connection; default for the URL.
_CONNECT_TIMEOUT: Final = 5
_MAX_CONNECT_TIMEOUT: Final = 60
_APPLICATION_NAME: Final = "gatehouse-issuer"
#: NAMEDATALEN - 1: PostgreSQL cuts longer names.
_MAX_APPLICATION_NAME: Final = 63

_SSL_MODES: Final = (
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
)
#: An issuer writes, so a standby is not acceptable.
_SESSION_ATTRIBUTES: Final = ("any", "read-write", "primary")


class DatabaseUrlError(ValueError):
    """A URL cannot be used; the message repeats no part that could be a secret."""


class HostPort(NamedTuple):
    """A server: a name, an address or the directory of a unix socket, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        if self.host.startswith("/"):
            return f"{self.host} (unix socket, port {self.port})"
        return (
            f"[{self.host}]:{self.port}"
            if ":" in self.host
            else f"{self.host}:{self.port}"
        )


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """A parsed PostgreSQL URL.

    Attributes:
        hosts: tried in this order; empty: the driver's defaults (PGHOST, the usual
            sockets, localhost).
        user: None: the driver's default.
        password: None: PGPASSWORD, the password file, or none.
        database: None: the driver's default.
        tls: sslmode, sslrootcert, sslcert and sslkey as given.
        application_name: shown in `pg_stat_activity`.
        connect_timeout: seconds for each host.
        target_session_attrs: the required state of a server.
    """

    hosts: tuple[HostPort, ...] = ()
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: str | None = None
    tls: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    application_name: str = _APPLICATION_NAME
    connect_timeout: int = _CONNECT_TIMEOUT
    target_session_attrs: str = "any"

    @property
    def address(self) -> str:
        """The servers as text, without credentials."""
        return ", ".join(map(str, self.hosts)) or "the driver's default address"


def is_sqlite(url: str) -> bool:
    """Return whether a checked database URL names an SQLite file."""
    return url.partition(":")[0] in _SQLITE_SCHEMES


def check_database_url(url: str) -> str:
    """Return the unchanged database URL when it can be used.

    Raises:
        DatabaseUrlError: saying what is wrong, and no part of the URL.
    """
    if not is_sqlite(url):
        parse_postgres_url(url)
        return url
    _check_sqlite_url(url)
    return url


def _check_sqlite_url(url: str) -> None:
    """Refuse URLs that would open another file than intended, or fail later."""
    _, separator, rest = url.partition("://")
    if not separator or not rest.startswith("/"):
        raise DatabaseUrlError(
            "must have three slashes before a relative path and four before an absolute "
            "one: sqlite+aiosqlite:///var/issuer.db, sqlite+aiosqlite:////var/issuer.db"
        )
    if "?" in rest:
        raise DatabaseUrlError(
            "of SQLite takes no parameters, and a path no ?; nothing would be encrypted "
            "or read-only by one"
        )
    path = rest[1:]
    if not path or path.endswith("/") or path == ":memory:":
        raise DatabaseUrlError("must name a file: sqlite+aiosqlite:///PATH")
    if path.startswith("file:") or any(char < " " or char == "\x7f" for char in path):
        raise DatabaseUrlError(
            "must name a file by its path, without file: or control characters"
        )


def parse_postgres_url(url: str) -> PostgresUrl:
    """Read a PostgreSQL URL, in the form that libpq documents.

    `HOST[:PORT]` may be repeated, separated by commas; `host=` and `port=` may replace
    it, for unix sockets.

    Raises:
        DatabaseUrlError: saying what is wrong, and no part of the URL.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _POSTGRES_SCHEMES:
        raise DatabaseUrlError(
            "must begin with postgresql://, postgresql+asyncpg:// or "
            "sqlite+aiosqlite:///"
        )
    if any(char <= " " or char == "\x7f" for char in rest):
        raise DatabaseUrlError("must have no blank or control character")
    try:
        parts = urlsplit(f"postgresql://{rest}")
    except ValueError:  # its message may repeat the URL
        raise DatabaseUrlError("an address in brackets is malformed") from None
    if "#" in rest or "@" in parts.path or "@" in parts.query:
        raise DatabaseUrlError(
            "user and password must be percent-encoded: write / as %2F, ? as %3F, # as "
            "%23, @ as %40, : as %3A"
        )
    userinfo, _, hostspec = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    database = parts.path.removeprefix("/")
    if "/" in database:
        raise DatabaseUrlError("must have one / after the host, and then the database")
    given = _read_query(parts.query)
    hosts = _find_hosts(hostspec, given)
    return PostgresUrl(
        hosts=hosts,
        user=_decode(user, "the user"),
        password=_decode(password, "the password"),
        database=_decode(database, "the database's name"),
        tls=_read_tls(given),
        application_name=_read_application_name(given),
        connect_timeout=_read_connect_timeout(given),
        target_session_attrs=_read_session_attributes(given, len(hosts)),
    )


def _decode(text: str, what: str) -> str | None:
    decoded = unquote(text)
    # It ends a string in the protocol: the rest would be misread.
    if "\0" in decoded:
        raise DatabaseUrlError(f"{what} must have no %00")
    return decoded or None


def _read_query(query: str) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {}
    for number, part in enumerate(query.split("&") if query else [], 1):
        name, _, text = part.partition("=")
        if name not in SUPPORTED:
            raise DatabaseUrlError(explain_unsupported(name, number))
        if not text:
            raise DatabaseUrlError(f"the parameter {name} is empty")
        if name in given and name != "host":
            raise DatabaseUrlError(f"the parameter {name} is given twice")
        given.setdefault(name, []).append(_decode(text, f"the parameter {name}") or "")
    return given


def _find_hosts(
    hostspec: str, given: Mapping[str, Sequence[str]]
) -> tuple[HostPort, ...]:
    texts = [host for part in given.get("host", ()) for host in part.split(",")]
    texts = texts or [unquote(host) for host in hostspec.split(",") if hostspec]
    ports = [_read_port(port) for port in given.get("port", ("",))[0].split(",")]
    if len(ports) not in (1, len(texts)):
        raise DatabaseUrlError("port must be one port, or as many as there are hosts")
    if len(ports) == 1:
        ports *= len(texts)
    return tuple(
        _read_host(text, port) for text, port in zip(texts, ports, strict=True)
    )


def _read_host(text: str, port: int) -> HostPort:
    if "\0" in text:
        raise DatabaseUrlError(_HOST_RULE)
    if text.startswith("/"):
        return HostPort(text, port)
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        is_host = bool(closed) and ":" in host and rest[:1] in ("", ":")
        given_port = rest[1:]
    else:
        host, _, given_port = text.partition(":")
        is_host = bool(host) and ":" not in given_port
    if not is_host or not _is_host(host):
        raise DatabaseUrlError(_HOST_RULE)
    return HostPort(host, _read_port(given_port) if given_port else port)


def _is_host(host: str) -> bool:
    try:
        (parse_ipv6 if ":" in host else parse_host)(host)
    except ValueError:
        return False
    return True


def _read_number(text: str, most: int) -> int:
    """Return a number from 1 to `most`.

    Raises:
        ValueError: for anything else.
    """
    if not (text.isascii() and text.isdecimal()) or len(text) > len(str(most)):
        raise ValueError(text)
    number = int(text)
    if not 1 <= number <= most:
        raise ValueError(text)
    return number


def _read_port(text: str) -> int:
    if not text:
        return _DEFAULT_PORT
    try:
        return _read_number(text, _MAX_PORT)
    except ValueError:
        raise DatabaseUrlError("a port must be a number from 1 to 65535") from None


def _read_one(
    given: Mapping[str, Sequence[str]],
    name: str,
    default: str,
    is_right: Callable[[str], bool],
    rule: str,
) -> str:
    text = given.get(name, [default])[0]
    if not is_right(text):
        raise DatabaseUrlError(f"{name} must be {rule}")
    return text


def _read_tls(given: Mapping[str, Sequence[str]]) -> Mapping[str, str]:
    tls = {name: given[name][0] for name in TLS_PARAMETERS if name in given}
    if tls.get("sslmode", "prefer") not in _SSL_MODES:
        raise DatabaseUrlError(f"sslmode must be one of {', '.join(_SSL_MODES)}")
    if "sslkey" in tls and "sslcert" not in tls:
        raise DatabaseUrlError("sslkey needs sslcert, the certificate it belongs to")
    # Like libpq since version 16: public authorities sign for every name, so the name
    # must be verified.
    is_public = tls.get("sslrootcert") == "system"
    if is_public and tls.setdefault("sslmode", "verify-full") != "verify-full":
        raise DatabaseUrlError("sslrootcert=system needs sslmode=verify-full")
    return MappingProxyType(tls)


def _read_application_name(given: Mapping[str, Sequence[str]]) -> str:
    return _read_one(
        given,
        "application_name",
        _APPLICATION_NAME,
        lambda text: text.isascii()
        and text.isprintable()
        and len(text) <= _MAX_APPLICATION_NAME,
        f"at most {_MAX_APPLICATION_NAME} printable ASCII characters",
    )


def _read_connect_timeout(given: Mapping[str, Sequence[str]]) -> int:
    text = given.get("connect_timeout", [str(_CONNECT_TIMEOUT)])[0]
    try:
        return _read_number(text, _MAX_CONNECT_TIMEOUT)
    except ValueError:
        raise DatabaseUrlError(
            "connect_timeout must be a number of seconds from 1 to "
            f"{_MAX_CONNECT_TIMEOUT}"
        ) from None


def _read_session_attributes(given: Mapping[str, Sequence[str]], hosts: int) -> str:
    return _read_one(
        given,
        "target_session_attrs",
        # All but one of several servers are standbys.
        "read-write" if hosts > 1 else "any",
        lambda text: text in _SESSION_ATTRIBUTES,
        f"one of {', '.join(_SESSION_ATTRIBUTES)}: an issuer writes",
    )
