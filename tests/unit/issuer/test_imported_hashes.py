"""Hashes that were made elsewhere, until the first login replaces them."""

from __future__ import annotations

import bcrypt
import pytest

from issuer.errors import (
    InvalidCredentialsError,
    InvalidRequestError,
    UnavailableError,
)
from issuer.hashing.foreign_hashes import build_reference
from issuer.hashing.hash_work import Family, Work, bcrypt_work
from issuer.hashing.passwords import PasswordHasher
from issuer.settings.issuer_settings import KeyRing
from tests.support.imported import HASHES, IMPORTED_PASSWORD, SPELLINGS

PASSWORD = "correct h\u00f6rse battery"


PBKDF2, ARGON2ID, SCRYPT = (
    HASHES[name] for name in ("pbkdf2_sha256", "argon2id", "scrypt")
)
PHC_SCRYPT = SPELLINGS["passlib scrypt"]


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
    stored, _ = hasher.adopt(make_foreign(PASSWORD, prefix), field="password_hash")
    hasher.verify(stored, PASSWORD)
    assert hashing.calls == 1
    assert hasher.needs_rehash(stored)
    with pytest.raises(InvalidCredentialsError):
        hasher.verify(stored, PASSWORD + "x")
    assert hashing.calls == 2


@pytest.mark.parametrize("text", (HASHES | SPELLINGS).values(), ids=HASHES | SPELLINGS)
def test_hashes_of_other_systems_are_verified_and_then_replaced(text: str) -> None:
    """R31: made by them, not by us; each costs one hash, and its work is reported."""
    done: list[Work] = []
    hasher = PasswordHasher(
        KeyRing(p1=b"\x02" * 32, p2=b"\x03" * 32),
        cost=4,
        on_hashed=lambda work, _took: done.append(work),
    )
    stored, work = hasher.adopt(text, field="password_hash")
    assert hasher.adopt(stored, field="password_hash") == (stored, work)
    assert hasher.read_work(stored) == work
    hasher.verify(stored, IMPORTED_PASSWORD)
    assert hasher.needs_rehash(stored)
    for wrong in (IMPORTED_PASSWORD + "x", "correct horse battery"):
        with pytest.raises(InvalidCredentialsError, match="wrong"):
            hasher.verify(stored, wrong)
    assert done == [work] * 3


@pytest.mark.parametrize(
    "work",
    [
        Work(Family.BCRYPT, 1 << 5),
        Work(Family.PBKDF2_SHA256, 1_234),
        Work(Family.ARGON2ID, 8),
        Work(Family.ARGON2ID, 66_001),
        Work(Family.SCRYPT, 16),
        Work(Family.SCRYPT, 24_001),
        Work(Family.SCRYPT, 140_001),
    ],
    ids=str,
)
def test_a_reference_can_be_computed_of_every_work(
    hasher: PasswordHasher, work: Work
) -> None:
    hasher.run_reference(work)
    if work.family is not Family.BCRYPT:
        assert len(build_reference(work)(b"x")) == 32


def test_r38_too_little_memory_for_a_hash_is_no_wrong_password() -> None:
    """It was a 500: scrypt and Argon2id say so by a MemoryError."""

    def fail(_password: bytes, _salt: bytes) -> bytes:
        raise MemoryError

    hasher = PasswordHasher(KeyRing(p1=b"\x02" * 32), cost=4, bcrypt_hash=fail)
    with pytest.raises(UnavailableError):
        hasher.verify(make_foreign(PASSWORD).replace("$2b$", "ghf1$$2b$"), PASSWORD)


def test_a_hash_of_our_own_is_taken_as_it_is(hasher: PasswordHasher) -> None:
    stored = hasher.hash(PASSWORD)
    assert hasher.adopt(stored, field="password_hash") == (stored, bcrypt_work(4))


def test_passwords_truncated_by_another_system_are_refused(
    hasher: PasswordHasher, hashing: CountingBcrypt
) -> None:
    """R31, R32: 72 bytes is all that bcrypt saw; the refusal costs one hash."""
    stored, _ = hasher.adopt(make_foreign("x" * 72), field="password_hash")
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
        pytest.param("$2b$15$" + "a" * 53, id="bcrypt of two seconds"),
        pytest.param("ghf1$$2b$15$" + "a" * 53, id="the same, stored here"),
        pytest.param("{bcrypt}$2a$15$" + "a" * 53, id="the same by Spring"),
        pytest.param("{noop}secret", id="a password of Spring's"),
        *(
            pytest.param(PBKDF2.replace("$1000$", f"${rounds}$"), id=f"{rounds} rounds")
            for rounds in ("999", "3000001", "99999999", "0", "-1", "1e3")
        ),
        pytest.param(PBKDF2.replace("sha256", "sha1"), id="PBKDF2 of SHA-1"),
        pytest.param(PBKDF2[:-9], id="PBKDF2 cut"),
        pytest.param(PBKDF2[:-20] + "=", id="PBKDF2, base64 cut"),
        *(
            pytest.param(ARGON2ID.replace("m=64,t=2,p=8", how), id=f"argon2id {how}")
            for how in (
                "m=262145,t=1,p=1",
                "m=262144,t=4,p=1",
                "m=100,t=9999,p=1",
                "m=4096,t=193,p=1",
                "m=64,t=2,p=9",
                "m=1024,t=1,p=17",
                "m=0,t=1,p=1",
                "t=2,m=64,p=8",
            )
        ),
        pytest.param(ARGON2ID.replace("argon2id", "argon2i"), id="argon2i"),
        pytest.param(ARGON2ID.replace("argon2id", "argon2d"), id="argon2d"),
        pytest.param(ARGON2ID.replace("v=19", "v=16"), id="argon2id of version 16"),
        pytest.param(ARGON2ID.replace("$c2FsdHNhbHRzYWx0$", "$c2Fs$"), id="short salt"),
        *(
            pytest.param(SCRYPT.replace(of, to), id=f"scrypt {to}")
            for of, to in (
                ("scrypt$16$", "scrypt$15$"),
                ("scrypt$16$", "scrypt$1$"),
                ("scrypt$16$", "scrypt$4194304$"),
                ("scrypt$16$saltsaltsalt$8", "scrypt$8192$saltsaltsalt$999"),
                ("scrypt$16$saltsaltsalt$8$5", "scrypt$8192$saltsaltsalt$8$99"),
                ("scrypt$16$", "scrypt$99999999$"),
                ("stEa+13A==", "stE="),
            )
        ),
        pytest.param(PHC_SCRYPT.replace("ln=4", "ln=19"), id="scrypt of 512 MiB"),
        # Taken, and each right password was wrong: bcrypt itself writes none of these.
        pytest.param("$2b$10$" + "." * 21 + "v" + "." * 31, id="bcrypt's salt"),
        pytest.param("$2b$10$" + "." * 52 + "/", id="bcrypt's digest"),
        # RFC 7914, section 2. It was taken, and every login to the account was 500.
        pytest.param(
            PHC_SCRYPT.replace("ln=4,r=8", "ln=16,r=1"), id="scrypt no one runs"
        ),
        pytest.param(PHC_SCRYPT.replace("ln=4", "ln=99"), id="scrypt of 2 to the 99"),
        pytest.param(
            f"ghf2$argon2id$000000000001${ARGON2ID}", id="stored with another amount"
        ),
        pytest.param(f"ghf2$scrypt$000000000128${ARGON2ID}", id="stored as another"),
    ],
)
def test_an_invalid_hash_is_refused_without_being_repeated(
    hasher: PasswordHasher, text: str
) -> None:
    """R35."""
    with pytest.raises(InvalidRequestError) as caught:
        hasher.adopt(text, field="password_hash")
    (problem,) = caught.value.problems
    assert problem.field == "password_hash"
    assert not text or text not in problem.rule
