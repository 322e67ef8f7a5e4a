"""The parameters of a database URL: supported ones, and replacements for others.

Pure. Errors never repeat any part of a URL, because it may have a password: a parameter
is named only when it is one of libpq's own words.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

TLS_PARAMETERS: Final = ("sslmode", "sslrootcert", "sslcert", "sslkey")
SUPPORTED: Final = (
    *TLS_PARAMETERS,
    "application_name",
    "connect_timeout",
    "target_session_attrs",
    "host",
    "port",
)
#: Words of libpq, asyncpg and SQLAlchemy that a message may repeat. Any other name may
#: be the end of a password with an unescaped `?`.
_UNSUPPORTED: Final = frozenset(
    [
        "async_fallback",
        "channel_binding",
        "client_encoding",
        "command_timeout",
        "database",
        "dbname",
        "direct_tls",
        "fallback_application_name",
        "gssdelegation",
        "gssencmode",
        "gsslib",
        "hostaddr",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "krbsrvname",
        "load_balance_hosts",
        "max_cached_statement_lifetime",
        "max_cacheable_statement_size",
        "options",
        "passfile",
        "password",
        "pgbouncer",
        "pool_timeout",
        "prepared_statement_cache_size",
        "prepared_statement_name_func",
        "replication",
        "require_auth",
        "requirepeer",
        "schema",
        "search_path",
        "server_settings",
        "service",
        "servicefile",
        "ssl",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "sslcertmode",
        "sslcompression",
        "sslcrl",
        "sslcrldir",
        "sslnegotiation",
        "sslpassword",
        "sslsni",
        "statement_cache_size",
        "statement_timeout",
        "tcp_user_timeout",
        "timeout",
        "timezone",
        "user",
    ]
)
#: Replacements for parameters that people know from other programs.
_INSTEAD: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ssl": "write sslmode=require or sslmode=verify-full",
        "timeout": "write connect_timeout",
        "command_timeout": "set ISSUER_DATABASE_STATEMENT_TIMEOUT",
        "statement_timeout": "set ISSUER_DATABASE_STATEMENT_TIMEOUT",
        "pool_timeout": "set ISSUER_DATABASE_POOL_TIMEOUT",
        "pgbouncer": "a pooler is found out without it",
        "prepared_statement_cache_size": "a pooler is found out without it",
        "statement_cache_size": "a pooler is found out without it",
        "dbname": "write the database after the host: HOST/NAME",
        "database": "write the database after the host: HOST/NAME",
        "user": "write USER:PASSWORD@ before the host",
        "password": "write USER:PASSWORD@ before the host",
    }
)


def explain_unsupported(name: str, number: int) -> str:
    """Return the error text for a parameter that is not supported.

    Args:
        name: as given; repeated only when it is a known word.
        number: its position in the query, from 1.
    """
    if name not in _UNSUPPORTED:
        return (
            f"parameter {number} after the ? is not supported (and a ? in user or "
            f"password is written %3F); supported are {', '.join(SUPPORTED)}"
        )
    instead = _INSTEAD.get(name, f"supported are {', '.join(SUPPORTED)}")
    return f"the parameter {name} is not supported; {instead}"
