"""Database URLs: accepted forms, and that no part of a wrong one is repeated
(R35).
"""

from __future__ import annotations

import pytest

from issuer.settings.database_url import (
    DatabaseUrlError,
    check_database_url,
    parse_postgres_url,
)
from issuer.settings.database_url_text import describe_database_url
from issuer.settings.issuer_settings import IssuerSettings, SettingsError, load_settings
from tests.support.issuer_harness import make_settings

SECRET = "s3cretpassword"
BASE = f"postgresql://issuer:{SECRET}@db.test/gate"


@pytest.mark.parametrize("scheme", ["postgresql+asyncpg", "postgresql", "postgres"])
def test_each_usual_scheme_is_taken(scheme: str) -> None:
    url = parse_postgres_url(f"{scheme}://issuer:p%40ss@db.test/gate")
    assert (url.user, url.password, url.database) == ("issuer", "p@ss", "gate")
    assert url.hosts == (("db.test", 5432),)
    assert (url.tls, url.target_session_attrs) == ({}, "any")


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://a:1,b:2/gate", [("a", 1), ("b", 2)]),
        ("postgresql://a,b:2/gate", [("a", 5432), ("b", 2)]),
        ("postgresql://[::1]:6432,[fe80::1]/gate", [("::1", 6432), ("fe80::1", 5432)]),
        ("postgresql:///gate?host=a:1&host=b:2", [("a", 1), ("b", 2)]),
        ("postgresql:///gate?host=a,b&port=1,2", [("a", 1), ("b", 2)]),
        ("postgresql:///gate?host=a,b&port=7", [("a", 7), ("b", 7)]),
        ("postgresql://x@/gate?host=/run/postgresql", [("/run/postgresql", 5432)]),
        ("postgresql://x@old/gate?host=new", [("new", 5432)]),
        ("postgresql://%2Frun%2Fpostgresql/gate", [("/run/postgresql", 5432)]),
        ("postgresql:///gate", []),
    ],
)
def test_several_hosts_are_read_in_each_of_their_forms(
    url: str, hosts: list[tuple[str, int]]
) -> None:
    parsed = parse_postgres_url(url)
    assert list(parsed.hosts) == hosts
    # All but one of several are standbys, which an issuer cannot use.
    wanted = "read-write" if len(hosts) > 1 else "any"
    assert parsed.target_session_attrs == wanted


def test_every_documented_parameter_is_read() -> None:
    url = parse_postgres_url(
        f"{BASE}?sslmode=verify-full&sslrootcert=/ca.pem&sslcert=/me.pem&sslkey=/me.key"
        "&application_name=gate%201&connect_timeout=9&target_session_attrs=primary"
    )
    assert url.tls == {
        "sslmode": "verify-full",
        "sslrootcert": "/ca.pem",
        "sslcert": "/me.pem",
        "sslkey": "/me.key",
    }
    assert (url.application_name, url.connect_timeout) == ("gate 1", 9)
    assert url.target_session_attrs == "primary"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"mysql://issuer:{SECRET}@db.test/gate", "must begin with postgresql://"),
        (f"{BASE}?statement_cache_size=0", "statement_cache_size is not supported"),
        (f"{BASE}?ssl=require", "ssl is not supported; write sslmode=require"),
        (
            f"{BASE}?options=-csearch_path%3Dx",
            "options is not supported; supported are",
        ),
        (f"{BASE}?{SECRET}=1", "parameter 1 after the ? is not supported"),
        (f"{BASE}?sslmode=require&{SECRET}", "parameter 2 after the ? is not"),
        (f"{BASE}?sslmode=verify_full", "sslmode must be one of disable, allow"),
        (f"{BASE}?sslmode=", "sslmode is empty"),
        (f"{BASE}?sslmode=require&sslmode=require", "sslmode is given twice"),
        (f"{BASE}?sslkey=/me.key", "sslkey needs sslcert"),
        (f"{BASE}?sslrootcert=system&sslmode=require", "needs sslmode=verify-full"),
        (f"{BASE}?connect_timeout=0", "connect_timeout must be a number of seconds"),
        (f"{BASE}?connect_timeout=9999999999", "connect_timeout must be a number"),
        (f"{BASE}?target_session_attrs=standby", "target_session_attrs must be one of"),
        (f"{BASE}?application_name={'x' * 64}", "application_name must be at most 63"),
        (f"{BASE}?port=0", "a port must be a number from 1 to 65535"),
        (f"postgresql:///gate?host=a,b&port=1,2,3&{SECRET}", "parameter 3"),
        ("postgresql:///gate?host=a,b&port=1,2,3", "as many as there are hosts"),
        (f"postgresql://u:{SECRET}@::1:5432/gate", "a host is malformed"),
        (f"postgresql://u:{SECRET}@[::1/gate", "brackets is malformed"),
        (f"postgresql://u:{SECRET}/x@db.test/gate", "must be percent-encoded"),
        (f"postgresql://u:{SECRET}?x@db.test/gate", "must be percent-encoded"),
        (f"postgresql://u:{SECRET}#x@db.test/gate", "must be percent-encoded"),
        (f"postgresql://u:{SECRET}@db.test/gate/more", "one / after the host"),
        (f"postgresql://u:{SECRET}@db.test:x/gate", "a port must be a number"),
        (f"postgresql://u:{SECRET}\n@db.test/gate", "no blank or control character"),
        (f"postgresql://u%00:{SECRET}@db.test/gate", "the user must have no %00"),
        (f"postgresql://u:{SECRET}%00@db.test/gate", "the password must have no %00"),
        (f"postgresql://u:{SECRET}@db.test/g%00", "the database's name must have no"),
        (f"postgresql://u:{SECRET}@a..b/gate", "a host is malformed"),
        (f"postgresql://u:{SECRET}@{'a' * 64}/gate", "a host is malformed"),
        (f"postgresql://u:{SECRET}@h%00/gate", "a host is malformed"),
        (f"postgresql://u:{SECRET}@*/gate", "a host is malformed"),
        (f"postgresql://u:{SECRET}@%20/gate", "a host is malformed"),
        (f"postgresql://u:{SECRET}@127.1/gate", "a host is malformed"),
        (f"postgresql://u:{SECRET}@[::x]/gate", "brackets is malformed"),
        ("postgresql:///gate?host=/run/%00", "host must have no %00"),
        (f"postgresql://u:{SECRET}@127.0.0.1:005432999/gate", "a port must be"),
        (f"{BASE}?connect_timeout=0005999", "connect_timeout must be a number"),
        ("sqlite+aiosqlite://", "three slashes"),
        ("sqlite+aiosqlite:///", "must name a file"),
        ("sqlite+aiosqlite:////tmp/", "must name a file"),
        ("sqlite+aiosqlite:///:memory:", "must name a file"),
        (f"sqlite+aiosqlite://u:{SECRET}@h/x", "three slashes"),
        ("sqlite+aiosqlite:///x?timeout=abc", "takes no parameters"),
        (f"sqlite:///x?cipher=x&pw={SECRET}", "takes no parameters"),
        ("sqlite+aiosqlite:///file:x?mode=ro&uri=true", "takes no parameters"),
        ("sqlite+aiosqlite:///file:x", "without file:"),
    ],
)
def test_the_fault_is_named_and_the_url_is_not_repeated(url: str, message: str) -> None:
    """Also text in the place of a parameter's name may be a password's end."""
    with pytest.raises(DatabaseUrlError) as caught:
        check_database_url(url)
    assert message in str(caught.value)
    for part in (SECRET, "db.test", "gate/", "@"):
        assert part not in str(caught.value).replace("@ as %40", "")


def test_the_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISSUER_DATABASE_URL", f"{BASE}?sslmode=on")
    monkeypatch.setenv("ISSUER_LISTEN_URL", f"{BASE}?pool_timeout=3")
    with pytest.raises(SettingsError) as caught:
        load_settings(None)
    lines = str(caught.value).splitlines()
    assert any(line.startswith("ISSUER_DATABASE_URL: sslmode must") for line in lines)
    assert any(
        line.startswith("ISSUER_LISTEN_URL: the parameter pool_timeout is not")
        for line in lines
    )
    assert SECRET not in str(caught.value)


def test_a_listening_connection_is_for_postgresql_alone() -> None:
    with pytest.raises(ValueError, match="ISSUER_LISTEN_URL: is for PostgreSQL"):
        make_settings("sqlite+aiosqlite:///x.db", listen_url=BASE)


def test_no_secret_is_shown() -> None:
    """R35."""
    shown = describe_database_url(f"{BASE}?sslmode=require")
    assert shown == "postgresql://issuer:***@db.test:5432/gate?sslmode=require"
    settings = make_settings(BASE, listen_url=BASE)
    assert isinstance(settings, IssuerSettings)
    assert SECRET not in repr(settings)
    assert SECRET not in repr(parse_postgres_url(BASE))
