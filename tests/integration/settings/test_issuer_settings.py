"""Settings that only the issuer has."""

from __future__ import annotations

from pathlib import Path

import pytest

from issuer.settings.database_url import parse_postgres_url
from tests.support.programs import HUSH, PROGRAMS, Desk


@pytest.fixture
def issuer_desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Desk:
    return Desk(PROGRAMS[0], tmp_path, monkeypatch, capsys)


DATABASE = "postgresql://me@db.test:5432/gatehouse"


def test_r57_the_password_of_the_database_may_be_a_separate_setting(
    issuer_desk: Desk,
) -> None:
    """And it is put into the URL so that any character may be in it."""
    password = "p@ss:w/rd %2F?#é"
    (issuer_desk.directory / "password").write_text(password + "\n")
    env = issuer_desk.program.env(
        DATABASE_URL=DATABASE, DATABASE_PASSWORD_FILE="password"
    )
    shown = issuer_desk.show(env)
    assert (shown.status, shown.err) == (0, "")
    assert shown.values["ISSUER_DATABASE_URL"] == DATABASE.replace("@", ":***@")
    assert password not in shown.out
    url = parse_postgres_url(issuer_desk.load(env).database_url)
    assert (url.user, url.password, url.hosts[0].host) == ("me", password, "db.test")


@pytest.mark.parametrize(
    ("listen_url", "used"),
    [
        ("postgresql://me@direct.test/x", HUSH),
        ("postgresql://me:other@direct.test/x", "other"),
    ],
)
def test_the_direct_connection_has_the_password_too(
    issuer_desk: Desk, listen_url: str, used: str
) -> None:
    """It leads to the same database; a password of its own is kept."""
    env = issuer_desk.program.env(
        DATABASE_URL=DATABASE, DATABASE_PASSWORD=HUSH, LISTEN_URL=listen_url
    )
    assert parse_postgres_url(issuer_desk.load(env).listen_url).password == used
    shown = issuer_desk.show(env)
    assert shown.values["ISSUER_LISTEN_URL"].startswith("postgresql://me:***@direct")
    assert "hush" not in shown.out


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (DATABASE.replace("me@", "me:hush@"), "ISSUER_DATABASE_URL holds a password"),
        (DATABASE.replace("me@", ""), "ISSUER_DATABASE_URL names no user"),
        ("sqlite+aiosqlite:///issuer.db", "ISSUER_DATABASE_URL names no user"),
    ],
)
def test_a_password_without_its_place_is_named(
    issuer_desk: Desk, url: str, says: str
) -> None:
    env = issuer_desk.program.env(DATABASE_URL=url, DATABASE_PASSWORD=HUSH)
    line = issuer_desk.refusal(env)
    assert line.startswith(f"ISSUER_DATABASE_PASSWORD: {says}")
    assert "hush" not in line


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql+asyncpg://me:hush@db.test:port/x", "a port must"),
        ("postgresql+asyncpg://me:hush@db.test:99999/x", "a port must"),
        ("postgresql+asyncpg://me:hush@db.test:0/x", "a port must"),
        ("mysql://me:hush@db.test/x", "must begin with"),
        ("hush", "must begin with"),
    ],
)
def test_a_bad_database_url_is_not_repeated(
    issuer_desk: Desk, url: str, says: str
) -> None:
    line = issuer_desk.refusal(issuer_desk.program.env(DATABASE_URL=url))
    assert line.startswith(f"ISSUER_DATABASE_URL: {says}")
    assert "hush" not in line


ENDPOINT = (
    '{"name":"partner","url":"https://partner.test/?key=hush","audience":"a",'
    f'"token":"{HUSH}"}}'
)


def test_r57_event_endpoints_come_from_a_file_in_two_ways(issuer_desk: Desk) -> None:
    (issuer_desk.directory / "caep.json").write_text(f"[\n  {ENDPOINT}\n]\n\n")
    for name, text in (("", "@caep.json"), ("_FILE", "caep.json")):
        env = issuer_desk.program.env(**{f"CAEP_ENDPOINTS{name}": text})
        shown = issuer_desk.show(env)
        assert shown.values["ISSUER_CAEP_ENDPOINTS"] == "(set: partner)"
        path = str(issuer_desk.directory / "caep.json")
        assert shown.values["ISSUER_CAEP_ENDPOINTS_FILE"] == path
        assert "hush" not in shown.out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("@", "must be the path of a file"),
        ("@nowhere/hush", "there is no file at this path"),
        ("@.", "the file is a directory"),
        ("@hush.json", "must be a JSON list"),
        ("hush", "must be a JSON list"),
    ],
)
def test_event_endpoints_that_cannot_be_read_are_named(
    issuer_desk: Desk, text: str, says: str
) -> None:
    (issuer_desk.directory / "hush.json").write_text("hush")
    line = issuer_desk.refusal(issuer_desk.program.env(CAEP_ENDPOINTS=text))
    assert line.startswith(f"ISSUER_CAEP_ENDPOINTS: {says}")
    assert "hush" not in line


def test_r57_the_files_of_secrets_can_be_found_again(issuer_desk: Desk) -> None:
    """Rereading a secret needs its path, in any later working directory."""
    (issuer_desk.directory / "token").write_text(HUSH)
    env = issuer_desk.program.env(FEED_TOKEN_FILE="token")
    del env["ISSUER_FEED_TOKEN"]
    path = issuer_desk.directory / "token"
    assert issuer_desk.load(env).secret_files == {"feed_token": path}


@pytest.mark.parametrize("text", ["true", "1", "yes", "on", "false", "0", "no", "off"])
def test_a_switch_is_on_or_off(issuer_desk: Desk, text: str) -> None:
    shown = issuer_desk.show(issuer_desk.program.env(PASSWORD_GRANT=text))
    assert shown.values["ISSUER_PASSWORD_GRANT"] in {"true", "false"}


@pytest.mark.parametrize("text", ["", "enabled", "hush", "2"])
def test_a_switch_that_is_neither_is_named(issuer_desk: Desk, text: str) -> None:
    assert issuer_desk.refusal(issuer_desk.program.env(PASSWORD_GRANT=text)) == (
        "ISSUER_PASSWORD_GRANT: must be true or false"
    )


@pytest.mark.parametrize("text", ["", "two", "1_0", "1e1", "inf", "nan", "2.", "2s"])
def test_a_fraction_is_written_in_digits(issuer_desk: Desk, text: str) -> None:
    assert issuer_desk.refusal(issuer_desk.program.env(DATABASE_POOL_TIMEOUT=text)) == (
        "ISSUER_DATABASE_POOL_TIMEOUT: must be a number in digits, such as 2.5; no unit, "
        "blank or underscore"
    )
