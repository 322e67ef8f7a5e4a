"""The file of authorities: a bad one is reported, and a new one is taken."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.outgoing.authorities import (
    MAX_FILE_BYTES,
    Authorities,
    AuthoritiesError,
    read_authorities,
)
from tests.support.certificates import Authority

SETTING = "VERIFIER_CA_FILE"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ca.pem"


def subjects(authorities: Authorities) -> int:
    return authorities.context.cert_store_stats()["x509"]


FAULTS = [
    pytest.param(lambda path, _: None, "cannot be read: No such file", id="missing"),
    pytest.param(lambda path, _: path.mkdir(), "cannot be read|not a regul", id="dir"),
    pytest.param(lambda path, _: os.mkfifo(path), "not a regular file", id="fifo"),
    pytest.param(lambda path, _: path.touch(), "is empty", id="empty"),
    pytest.param(lambda path, _: path.write_text(" \n\n"), "is empty", id="blank"),
    pytest.param(lambda path, _: path.write_text("hello"), "not PEM", id="text"),
    pytest.param(lambda path, a: path.write_bytes(a.der), "not PEM but DER", id="der"),
    pytest.param(
        lambda path, a: path.write_bytes(a.sign("x.test").key),
        "holds no certificate",
        id="key",
    ),
    pytest.param(
        lambda path, a: path.write_bytes(a.certificate[:200]),
        "is damaged",
        id="cut off",
    ),
    pytest.param(
        lambda path, a: path.write_bytes(a.certificate + a.certificate[:300]),
        "is damaged",
        id="second cut off",
    ),
    pytest.param(
        lambda path, a: path.write_bytes(a.certificate.replace(b"M", b"!", 1)),
        "is damaged",
        id="not base64",
    ),
    pytest.param(
        lambda path, a: path.write_bytes(a.certificate + b"#" * MAX_FILE_BYTES),
        "is over",
        id="too large",
    ),
]


@pytest.mark.parametrize(("make", "message"), FAULTS)
def test_unusable_file_is_refused_with_the_reason(
    path: Path, authority: Authority, make: Callable[..., object], message: str
) -> None:
    make(path, authority)
    with pytest.raises(AuthoritiesError, match=message) as caught:
        Authorities(SETTING, str(path))
    assert str(path) in str(caught.value)


def test_unreadable_file_is_refused_with_the_reason(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read everything: the answer of the kernel is given for it."""

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    path.touch()
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(AuthoritiesError, match="cannot be read: Permission denied"):
        read_authorities(str(path))


@pytest.mark.parametrize("comment", ["", "# Größe: eine Stelle\n"])
def test_a_bundle_may_hold_comments_and_windows_line_ends(
    path: Path, authority: Authority, comment: str
) -> None:
    text = comment.encode() + authority.certificate + Authority("other").certificate
    path.write_bytes(text.replace(b"\n", b"\r\n"))
    assert subjects(Authorities(SETTING, str(path))) == 2


def test_nothing_but_the_file_is_trusted(path: Path, authority: Authority) -> None:
    path.write_bytes(authority.certificate)
    assert subjects(Authorities(SETTING, str(path))) == 1


def test_a_changed_file_is_taken_and_an_unchanged_one_is_not_read_twice(
    path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """R59."""
    caplog.set_level("INFO")
    path.write_bytes(authority.certificate)
    authorities = Authorities(SETTING, str(path))
    first = authorities.context
    assert not authorities.renew()
    assert authorities.context is first
    # As Kubernetes does it: the name leads to another file at once.
    new = path.with_suffix(".new")
    new.write_bytes(authority.certificate + Authority("other").certificate)
    new.rename(path)
    assert authorities.renew()
    assert subjects(authorities) == 2
    assert not authorities.renew()
    assert caplog.messages == ["authorities.changed"]


def test_a_change_in_place_of_the_same_length_and_time_is_seen(path: Path) -> None:
    one, two = Authority("one"), Authority("two")
    while len(one.certificate) != len(two.certificate):
        two = Authority("two")
    path.write_bytes(one.certificate)
    os.utime(path, (1, 1))
    authorities = Authorities(SETTING, str(path))
    path.write_bytes(two.certificate)
    os.utime(path, (1, 1))
    assert authorities.renew()


@pytest.mark.parametrize(("make", "message"), FAULTS)
def test_bad_new_file_is_logged_once_and_the_last_good_one_stays_in_force(
    path: Path,
    authority: Authority,
    make: Callable[..., object],
    message: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """R65."""
    path.write_bytes(authority.certificate)
    authorities = Authorities(SETTING, str(path))
    good = authorities.context
    path.unlink()
    make(path, authority)
    for _ in range(3):
        assert not authorities.renew()
    assert authorities.context is good
    (record,) = caplog.records
    assert record.message == "authorities.refused"
    assert record.levelname == "ERROR"
    assert record.fields["setting"] == SETTING
    assert "the last good ones stay in force" in record.fields["error"]
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.write_bytes(Authority("after").certificate)
    assert authorities.renew()


def test_the_systems_authorities_are_looked_at_as_well(
    path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`update-ca-certificates` beside a running program."""
    path.write_bytes(authority.certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    monkeypatch.setenv("SSL_CERT_DIR", str(path.parent / "away"))
    authorities = Authorities(SETTING, "")
    assert subjects(authorities) == 1
    assert not authorities.renew()
    path.write_bytes(authority.certificate + Authority("other").certificate)
    assert authorities.renew()
    assert subjects(authorities) == 2
    path.unlink()
    # Nothing is trusted now, and that is the system's word.
    assert authorities.renew()
    assert subjects(authorities) == 0


def test_a_store_that_goes_away_while_it_is_looked_at_is_a_change(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "shared.outgoing.authorities._system_paths", lambda: iter([str(path)])
    )
    authorities = Authorities(SETTING, "")
    path.touch()
    assert authorities.renew()
