"""Codes of authenticator apps (RFC 6238), and recovery codes."""

from __future__ import annotations

import pytest

from issuer.credentials import recovery_codes, totp
from issuer.credentials.secret_encryption import decrypt_secret, encrypt_secret
from issuer.errors import InvalidSecondFactorError, UnavailableError
from issuer.settings.issuer_settings import KeyRing

SECRET = b"12345678901234567890"
#: RFC 6238, appendix B: the last six of its eight digits.
VECTORS = [
    (59, "287082"),
    (1_111_111_109, "081804"),
    (1_111_111_111, "050471"),
    (1_234_567_890, "005924"),
    (2_000_000_000, "279037"),
    (20_000_000_000, "353130"),
]


@pytest.mark.parametrize(("now", "code"), VECTORS)
def test_the_codes_are_those_of_the_rfc(now: int, code: str) -> None:
    assert totp.find_step(SECRET, code, now=now, last_step=0) == now // 30


@pytest.mark.parametrize("late", [-30, 0, 30])
def test_a_code_of_the_step_before_or_after_is_taken(late: int) -> None:
    """RFC 6238, section 5.2; the step is the code's own, not the clock's."""
    now = 1_111_111_109
    found = totp.find_step(SECRET, "081804", now=now + late, last_step=0)
    assert found == now // 30


@pytest.mark.parametrize("late", [-60, 60])
def test_a_code_of_another_time_is_refused(late: int) -> None:
    with pytest.raises(InvalidSecondFactorError):
        totp.find_step(SECRET, "081804", now=1_111_111_109 + late, last_step=0)


@pytest.mark.parametrize("later", [0, 1, 2])
def test_a_spent_code_and_any_before_it_are_refused(later: int) -> None:
    """RFC 6238, section 5.2."""
    step = 1_111_111_109 // 30
    with pytest.raises(InvalidSecondFactorError):
        totp.find_step(SECRET, "081804", now=1_111_111_109, last_step=step + later)


def test_a_step_that_a_clock_ahead_used_does_not_spend_those_of_now() -> None:
    """R53: every code was refused until the clock got there."""
    now = 1_111_111_109
    latest = totp.latest_step(now)
    with pytest.raises(InvalidSecondFactorError):
        totp.find_step(SECRET, "081804", now=now, last_step=latest)
    found = totp.find_step(SECRET, "081804", now=now, last_step=latest + 1)
    assert found == now // 30


@pytest.mark.parametrize(
    "code", ["", "08180", "0818040", "08180a", "\u0660818044", " 81804", "081804\n"]
)
def test_anything_but_six_digits_is_refused(code: str) -> None:
    with pytest.raises(InvalidSecondFactorError):
        totp.find_step(SECRET, code, now=1_111_111_109, last_step=0)


def test_an_app_is_published_the_secret_the_issuer_and_the_name() -> None:
    uri = totp.build_uri(SECRET, username="al\u00efce b", issuer="issuer.test")
    assert uri.startswith("otpauth://totp/issuer.test:al%C3%AFce%20b?")
    assert f"secret={totp.show_secret(SECRET)}" in uri
    assert {"digits=6", "period=30", "algorithm=SHA1"} <= set(
        uri.partition("?")[2].split("&")
    )


def test_a_recovery_code_is_known_in_any_spelling() -> None:
    code = recovery_codes.make_code(bytes(range(10)))
    assert len(code) == 19
    digest = recovery_codes.digest_code("alice", code)
    for typed in (code.lower(), code.replace("-", ""), code.replace("-", " ")):
        assert recovery_codes.digest_code("alice", typed) == digest
    assert recovery_codes.digest_code("bob", code) != digest


@pytest.mark.parametrize("code", ["", "123456", "A" * 15, "A" * 17, "0" * 16])
def test_what_cannot_be_a_recovery_code_is_refused(code: str) -> None:
    with pytest.raises(InvalidSecondFactorError):
        recovery_codes.digest_code("alice", code)


OLD, NEW = KeyRing(k1=b"\x01" * 32), KeyRing(k2=b"\x02" * 32, k1=b"\x01" * 32)


def test_an_encrypted_secret_opens_for_its_owner_alone() -> None:
    stored = encrypt_secret(SECRET, user_id="alice", nonce=b"n" * 12, key_ring=OLD)
    assert SECRET not in stored
    opened = decrypt_secret(stored, user_id="alice", kek_id="k1", key_ring=NEW)
    assert opened == SECRET
    with pytest.raises(UnavailableError):
        decrypt_secret(stored, user_id="bob", kek_id="k1", key_ring=OLD)


@pytest.mark.parametrize(
    ("stored", "kek_id"),
    [
        (b"", "k1"),
        (b"\x02" + b"n" * 40, "k1"),
        (b"\x01" + b"n" * 40, "k1"),
        (b"", "k9"),
    ],
    ids=["empty", "another form", "garbage", "another key"],
)
def test_what_does_not_open_is_an_outage_and_not_a_wrong_code(
    stored: bytes, kek_id: str
) -> None:
    """R38."""
    with pytest.raises(UnavailableError):
        decrypt_secret(stored, user_id="alice", kek_id=kek_id, key_ring=OLD)
