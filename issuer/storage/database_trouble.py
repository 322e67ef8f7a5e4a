"""The meaning of a database error: the answer, and the advice for operators.

A database that refuses is a 503 and not ready, whatever the code (requirement R58).
Only faults of our own statements stay our errors: a broken constraint, a value or a
syntax that PostgreSQL rejects.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import asyncpg
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError

from issuer.errors import (
    DatabaseAwayError,
    DatabaseConflictError,
    DatabaseRefusesWritesError,
    DatabaseTroubleError,
)
from issuer.storage.postgres_connections import ConnectError, TlsFileError

#: Errors of the driver itself. SQLAlchemy wraps them in its own, except where it sets
#: up a new connection that is already closed.
DRIVER_ERRORS: Final = (asyncpg.InterfaceError, asyncpg.InternalClientError)

_MIGRATE: Final = "run `python -m issuer migrate`"
_CONFLICTS: Final = frozenset({"40001", "40P01"})
_READ_ONLY: Final = "25006"
#: A standby was asked for something that only a primary has; also other passing states.
_NOT_IN_STATE: Final = "55000"
_LACKS: Final = frozenset({"3F000", "42P01", "42703", "42704", "42883"})
_REFUSES_WRITES: Final = frozenset({_READ_ONLY, "53100", "58030"})
#: Classes of SQLSTATE about the server, not about one of our statements: 08 connection,
#: 28 authorization, 3D database, 40 rollback, 53 resources, 55 prerequisites, 57
#: intervention, 58 system, F0 configuration file, XX internal.
_CLASSES: Final = frozenset(
    {"08", "28", "3D", "40", "53", "55", "57", "58", "F0", "XX"}
)
#: For these the server's message is repeated: it names users, databases and limits.
_TOLD: Final = frozenset({"08", "28", "3D", "53", "57", "58", "F0"})
_MOST_TOLD: Final = 200
#: The connection is useless: its server refuses us or is not a primary.
_DROPPED_CLASSES: Final = ("08", "28", "57P")
_DROPPED: Final = frozenset({_READ_ONLY, _NOT_IN_STATE, "25P03", "25P04", "58030"})

_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        _READ_ONLY: "is read-only (a standby, or an old primary after a failover). Name "
        "the primary, or all servers with target_session_attrs=read-write",
        _NOT_IN_STATE: "is a standby, or not in the state that is needed. Name the "
        "primary, or all servers with target_session_attrs=read-write",
        "25P03": "ended a transaction that was idle for too long",
        "25P04": "ended a transaction that took too long (its transaction_timeout)",
        "42501": "lets the user do less than is needed. Let it own the database (ALTER "
        "DATABASE ... OWNER TO) and the tables there are (ALTER TABLE ... OWNER TO), or "
        "GRANT the rights",
        "53100": "has no room left on its disk. Make room there",
        "53300": "takes no more connections. Raise max_connections there, or lower "
        "ISSUER_DATABASE_POOL_SIZE",
        "55P03": "kept a lock for too long. Look in pg_locks for who holds it",
        "57014": "cancelled a statement: it ran past the server's own statement_timeout, "
        "or somebody cancelled it",
        "57P01": "is being shut down, or an administrator ended the connection",
        "57P02": "is restarting after a crash",
        "57P03": "is starting, or shutting down",
        "57P04": "has dropped the database",
    }
)

#: SQLite's primary result codes.
_SQLITE_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_SQLITE_REFUSES_WRITES: Final = frozenset(
    {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
)
_SQLITE_BROKEN: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SQLITE_AWAY: Final = frozenset(
    {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}
)
_SQLITE_PROTOCOL: Final = sqlite3.SQLITE_PROTOCOL


@dataclass(frozen=True, slots=True)
class DatabasePlace:
    """Names the database in messages for operators.

    Attributes:
        setting: the name of the setting with its URL.
        address: without credentials; the path for SQLite.
        database: its name in PostgreSQL.
        is_sqlite: whether it is a file.
    """

    setting: str
    address: str
    database: str = ""
    is_sqlite: bool = False

    def tell(self, words: str) -> str:
        """Return a sentence for an operator: the setting, the place and `words`."""
        what = "SQLite file" if self.is_sqlite else "PostgreSQL at"
        return f"{self.setting}: {what} {self.address} {words}."


def find_trouble(
    error: (
        OSError
        | DBAPIError
        | asyncpg.InterfaceError
        | asyncpg.InternalClientError
        | TlsFileError
    ),
    place: DatabasePlace,
) -> DatabaseTroubleError | None:
    """Return the error to raise for database trouble; None when the fault is ours.

    Args:
        error: raised by the driver or SQLAlchemy.
        place: names the database.
    """
    if isinstance(error, ConnectError):
        told = "; ".join(
            f"PostgreSQL at {host or place.address} {_tell_unreached(reason)}"
            for host, reason in error.reasons
        )
        return DatabaseAwayError(detail=f"{place.setting}: {told}.")
    if isinstance(error, TlsFileError):
        words = f"was not asked: {error.parameter}: {error.reason}"
        return DatabaseAwayError(detail=place.tell(words))
    if isinstance(error, OSError):
        return DatabaseAwayError(detail=place.tell(_tell_unreached(error)))
    if isinstance(error, DRIVER_ERRORS):
        told = " ".join(str(error).split())[:_MOST_TOLD]
        return DatabaseAwayError(detail=place.tell(f"cannot be used: {told}"))
    if place.is_sqlite:
        return _find_sqlite_trouble(error, place)
    return _find_postgres_trouble(error, place)


def is_useless_after(error: BaseException) -> bool:
    """Return whether a connection to PostgreSQL must be dropped after this error.

    This includes a connection without an answer: a rollback would wait as long.
    """
    state = str(getattr(error, "sqlstate", None) or "")
    return (
        isinstance(error, TimeoutError)
        or state.startswith(_DROPPED_CLASSES)
        or state in _DROPPED
    )


def _find_postgres_trouble(
    error: DBAPIError, place: DatabasePlace
) -> DatabaseTroubleError | None:
    state = str(getattr(error.orig, "sqlstate", None) or "")
    if state in _CONFLICTS or isinstance(
        error.orig, AsyncAdapt_asyncpg_dbapi.InvalidCachedStatementError
    ):
        words = "rolled a transaction back because of another one; try again"
        return DatabaseConflictError(detail=place.tell(words))
    if not state and error.connection_invalidated:
        return DatabaseAwayError(detail=place.tell("ended the connection"))
    if not state and isinstance(
        error.orig,
        AsyncAdapt_asyncpg_dbapi.InterfaceError
        | AsyncAdapt_asyncpg_dbapi.InternalClientError,
    ):
        # The driver's own errors: a closed connection, a missing certificate.
        return DatabaseAwayError(detail=place.tell(f"cannot be used: {_told(error)}"))
    words = _tell_state(state, error, place)
    if not words:
        return None
    detail = place.tell(f"{words} (SQLSTATE {state})")
    if state in _REFUSES_WRITES:
        return DatabaseRefusesWritesError(detail=detail)
    if error.connection_invalidated or state == "53300" or state.startswith("3D"):
        return DatabaseAwayError(detail=detail)
    return DatabaseTroubleError(detail=detail)


def _tell_state(state: str, error: DBAPIError, place: DatabasePlace) -> str:
    """Return the text for a SQLSTATE; empty when the server is not at fault."""
    if state in _WORDS:
        return _WORDS[state]
    if state in _LACKS:
        return (
            f"has no complete schema in {place.database or 'the database'}: {_MIGRATE}"
        )
    if state[:2] not in _CLASSES:
        return ""
    told = f": {_told(error)}" if state[:2] in _TOLD else ""
    if state.startswith("28"):
        return (
            f"refuses the user{told}. Check user and password, pg_hba.conf there, and "
            "whether it asks for TLS (sslmode=require)"
        )
    if state.startswith("3D"):
        return f"lacks the database{told}. Create it (CREATE DATABASE ... OWNER ...), then {_MIGRATE}"
    return f"refuses{told}"


def _told(error: DBAPIError) -> str:
    """Return the server's primary message on one line."""
    text = str(error.orig).partition("\n")[0].rpartition(">: ")[2]
    return " ".join(text.split())[:_MOST_TOLD]


def _tell_unreached(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"shows a certificate that is refused: {error.verify_message}. Check "
            "sslrootcert and the name in the URL"
        )
    if isinstance(error, ssl.SSLError):
        reason = error.reason or "the handshake failed"
        return f"does not agree on TLS: {reason}. Check sslmode, sslcert and sslkey"
    if "rejected SSL" in str(error):  # asyncpg has no class for it
        return "has no TLS. Switch ssl on there, or write sslmode=prefer or disable"
    if isinstance(error, TimeoutError):
        return "did not answer in time. Check the address, and that the server runs"
    if isinstance(error, socket.gaierror):
        return f"cannot be found: {error.strerror}. Check the name in the URL"
    if isinstance(error, asyncpg.CannotConnectNowError):
        return "is starting, or shutting down"
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return "is a standby or read-only. Name the primary"
    if isinstance(error, ConnectionRefusedError):
        return "refuses connections. Check that it runs and listens there"
    if isinstance(error, FileNotFoundError):
        return "has no socket there. Check the directory, and that the server runs"
    reason = getattr(error, "strerror", None) or str(error)
    return f"cannot be reached: {reason}. Check that it runs and listens there"


def _find_sqlite_trouble(
    error: DBAPIError, place: DatabasePlace
) -> DatabaseTroubleError | None:
    # The low byte of an extended result code is the primary code.
    code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
    if code in _SQLITE_BUSY or code == _SQLITE_PROTOCOL:
        words = "is locked by another process for too long. Let one issuer use it"
        return DatabaseTroubleError(detail=place.tell(words))
    if code in _SQLITE_REFUSES_WRITES:
        words = f"cannot be written: {error.orig}. {_advise_file(place.address)}"
        return DatabaseRefusesWritesError(detail=place.tell(words))
    if code in _SQLITE_AWAY:
        words = f"cannot be opened. {_advise_file(place.address)}"
        return DatabaseAwayError(detail=place.tell(words))
    if code in _SQLITE_BROKEN:
        words = f"is damaged: {error.orig}. Put a backup in its place"
        return DatabaseAwayError(detail=place.tell(words))
    # SQLite has one code for all statements that it cannot compile.
    if str(error.orig).startswith(("no such table", "no such column")):
        words = f"has no complete schema: {_MIGRATE}"
        return DatabaseTroubleError(detail=place.tell(words))
    return None


def _advise_file(address: str) -> str:
    """Look at the file and return advice."""
    path = Path(address)
    directory = path.parent
    if not directory.is_dir():
        return f"The directory {directory} is not there: create it, or {_MIGRATE}"
    if not path.exists():
        return f"The file is not there: {_MIGRATE}, which makes it"
    if not os.access(directory, os.W_OK | os.X_OK):
        return (
            f"The directory {directory} must be writable, for SQLite keeps files beside "
            "it, and not on a disk that is mounted read-only"
        )
    if not os.access(path, os.R_OK | os.W_OK):
        return "The file must be readable and writable by this user"
    return "Check the room on its disk, and that it is not mounted read-only"
