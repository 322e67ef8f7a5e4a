"""Hashes that were made elsewhere, until the first login replaces them."""

from __future__ import annotations

import bcrypt
import pytest

from issuer.accounts.passwords import PasswordHasher
from issuer.errors import InvalidCredentialsError, InvalidRequestError
from issuer.settings import KeyRing

PASSWORD = "correct h\u00f6rse battery"


class CountingBcrypt:
    """bcrypt itself, and how often it ran."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, password: bytes, salt: bytes) -> bytes:
        self.calls += 1
        return bcrypt.hashpw(password, salt)


@pytest.fixture
def hashing() -> CountingBcrypt:
    return CountingBcrypt()


@pytest.fixture
def hasher(hashing: CountingBcrypt) -> PasswordHasher:
    ring = KeyRing(p1=b"\x02" * 32)
    return PasswordHasher(ring, cost=4, bcrypt_hash=hashing)


def make_foreign(password: str, prefix: str = "$2b$") -> str:
    made = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
    return prefix + made[4:]


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$"])
def test_another_systems_bcrypt_is_taken_and_then_replaced(
    hasher: PasswordHasher, hashing: CountingBcrypt, prefix: str
) -> None:
    stored = hasher.adopt(make_foreign(PASSWORD, prefix), field="password_hash")
    hasher.verify(stored, PASSWORD)
    assert hashing.calls == 1
    assert hasher.needs_rehash(stored)
    with pytest.raises(InvalidCredentialsError):
        hasher.verify(stored, PASSWORD + "x")
    assert hashing.calls == 2


def test_a_hash_of_our_own_is_taken_as_it_is(hasher: PasswordHasher) -> None:
    stored = hasher.hash(PASSWORD)
    assert hasher.adopt(stored, field="password_hash") == stored


def test_what_another_system_cut_off_is_not_guessed(
    hasher: PasswordHasher, hashing: CountingBcrypt
) -> None:
    """R31, R32: 72 bytes is all that bcrypt saw; the refusal costs one hash."""
    stored = hasher.adopt(make_foreign("x" * 72), field="password_hash")
    hasher.verify(stored, "x" * 72)
    hashing.calls = 0
    with pytest.raises(InvalidCredentialsError):
        hasher.verify(stored, "x" * 73)
    assert hashing.calls == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "$1$abc$def",
        "$2x$04$" + "a" * 53,
        "$2b$31$" + "a" * 53,
        "$2b$04$" + "a" * 52,
        "ghp1$p2$$2b$04$" + "a" * 53,
        "ghf1$$2b$04$" + "a" * 53 + "\n",
    ],
)
def test_what_is_no_hash_is_refused_without_being_repeated(
    hasher: PasswordHasher, text: str
) -> None:
    """R35."""
    with pytest.raises(InvalidRequestError) as caught:
        hasher.adopt(text, field="password_hash")
    (problem,) = caught.value.problems
    assert problem.field == "password_hash"
    assert not text or text not in problem.rule
