"""Password hashes of other systems: their forms and bounds. Pure.

Accepted are the forms of Django (`pbkdf2_sha256$...`, `scrypt$...`,
`argon2$argon2id$...`), PHC strings (`$argon2id$...`, `$scrypt$...`) and bcrypt, which
`passwords.py` reads, also with the prefixes of Django and Spring (`{bcrypt}`).

Every login to such an account runs the function with the numbers in the hash, so a
stranger can cause this work. All are bounded: time to about that of bcrypt at cost 14,
memory to 256 MiB (docs/decisions/0017-time-until-the-answer.md).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from issuer.hashing.hash_work import Family, Work

#: RFC 8018, section 4.2, recommends 1,000 at least.
_PBKDF2_ITERATIONS: Final = range(1_000, 3_000_001)
_MAX_MEMORY_KIB: Final = 262_144
#: KiB times passes.
_MAX_ARGON2_WORK: Final = 786_432
#: RFC 9106, section 3.1: 8 KiB of memory for each lane.
_KIB_PER_LANE: Final = 8
_MAX_LANES: Final = 16
_MAX_SCRYPT_WORK: Final = 3 << 20
#: RFC 7914, section 2: 128 * r * N bytes.
_SCRYPT_BLOCK_BYTES: Final = 128
_SALT_BYTES: Final = range(8, 65)
_DIGEST_BYTES: Final = range(16, 65)
_DJANGO_SCRYPT_BYTES: Final = 64
_REFERENCE_SALT: Final = bytes(16)
_REFERENCE_BYTES: Final = 32
_REFERENCE_BLOCK: Final = 8
_REFERENCE_N: Final = 1 << 14
_REFERENCE_KIB: Final = 65_536

#: Prefixes that Django and Spring write before another system's form.
_PREFIXES: Final = ("{bcrypt}", "{argon2}", "{argon2@SpringSecurity_v5_8}")
_DJANGO_PREFIXES: Final = {"argon2$argon2id$": "$argon2id$", "bcrypt$$2": "$2"}

_TEXT: Final = r"[!-#%-~]{1,128}"
_BASE64: Final = r"[A-Za-z0-9+/]{11,88}={0,2}"
_PBKDF2: Final = re.compile(
    rf"pbkdf2_sha256\$([1-9][0-9]{{0,7}})\$({_TEXT})\$({_BASE64})"
)
_ARGON2ID: Final = re.compile(
    r"\$argon2id\$v=19\$m=([1-9][0-9]{0,6}),t=([1-9][0-9]{0,3}),p=([1-9][0-9]?)"
    rf"\$({_BASE64})\$({_BASE64})"
)
_DJANGO_SCRYPT: Final = re.compile(
    rf"scrypt\$([1-9][0-9]{{0,7}})\$({_TEXT})\$([1-9][0-9]{{0,3}})"
    rf"\$([1-9][0-9]{{0,3}})\$({_BASE64})"
)
_PHC_SCRYPT: Final = re.compile(
    r"\$scrypt\$ln=([1-9][0-9]?),r=([1-9][0-9]{0,3}),p=([1-9][0-9]{0,3})"
    rf"\$({_BASE64})\$({_BASE64})"
)


class ForeignHashError(ValueError):
    """The hash cannot be used; the message is the broken rule."""


@dataclass(frozen=True, slots=True)
class ForeignHash:
    """A hash of another system.

    Attributes:
        work: the cost of computing it.
        digest: of the right password.
        derive: computes the digest of a password's bytes.
    """

    work: Work
    digest: bytes
    derive: Callable[[bytes], bytes]


def strip_prefix(text: str) -> str:
    """Return the hash without a prefix of Django or Spring."""
    for prefix in _PREFIXES:
        if text.startswith(prefix):
            return text.removeprefix(prefix)
    for prefix, kept in _DJANGO_PREFIXES.items():
        if text.startswith(prefix):
            return kept + text.removeprefix(prefix)
    return text


def read_foreign(text: str) -> ForeignHash | None:
    """Return the hash in `text`; None for bcrypt and unknown forms.

    Raises:
        ForeignHashError: when a parameter is out of bounds, or the form is broken.
    """
    for form, read in _READERS.items():
        match = form.fullmatch(text)
        if match is not None:
            return read(match)
    return None


def build_reference(work: Work) -> Callable[[bytes], bytes]:
    """Return a function with as much work as a stored hash, or a little more.

    Args:
        work: not of bcrypt.
    """
    amount = work.amount
    if work.family is Family.PBKDF2_SHA256:
        return _pbkdf2(_REFERENCE_SALT, _REFERENCE_BYTES, amount)
    if work.family is Family.ARGON2ID:
        passes = -(-amount // _REFERENCE_KIB)
        memory = max(-(-amount // passes), _KIB_PER_LANE)
        return _argon2id(_REFERENCE_SALT, _REFERENCE_BYTES, memory, passes, 1)
    if work.family is Family.SCRYPT:
        n = _REFERENCE_N
        while n > 2 and n * _REFERENCE_BLOCK > amount:
            n //= 2
        lanes = -(-amount // (n * _REFERENCE_BLOCK))
        return _scrypt(_REFERENCE_SALT, _REFERENCE_BYTES, n, _REFERENCE_BLOCK, lanes)
    raise ValueError(work.family)


def _read_pbkdf2(match: re.Match[str]) -> ForeignHash:
    iterations, salt, digest = int(match[1]), match[2].encode(), _decode(match[3])
    if iterations not in _PBKDF2_ITERATIONS:
        low, high = _PBKDF2_ITERATIONS.start, _PBKDF2_ITERATIONS.stop - 1
        raise ForeignHashError(f"pbkdf2_sha256: must have {low:,} to {high:,} rounds")
    if len(digest) != SHA256.digest_size:
        raise ForeignHashError("pbkdf2_sha256: must hold a hash of 32 bytes")
    return ForeignHash(
        Work(Family.PBKDF2_SHA256, iterations),
        digest,
        _pbkdf2(salt, len(digest), iterations),
    )


def _read_argon2id(match: re.Match[str]) -> ForeignHash:
    memory, passes, lanes = int(match[1]), int(match[2]), int(match[3])
    salt, digest = _decode(match[4]), _decode(match[5])
    if (
        memory > _MAX_MEMORY_KIB
        or memory * passes > _MAX_ARGON2_WORK
        or lanes > _MAX_LANES
        or memory < _KIB_PER_LANE * lanes
    ):
        raise ForeignHashError(
            f"argon2id: m must be at most {_MAX_MEMORY_KIB:,}, m times t at most "
            f"{_MAX_ARGON2_WORK:,}, and p at most {_MAX_LANES} and an eighth of m"
        )
    _require_sizes(digest, salt)
    try:
        derive = _argon2id(salt, len(digest), memory, passes, lanes)
    except UnsupportedAlgorithm:
        rule = "argon2id: needs `cryptography` built with OpenSSL 3.2 or newer"
        raise ForeignHashError(rule) from None
    return ForeignHash(Work(Family.ARGON2ID, memory * passes), digest, derive)


def _read_django_scrypt(match: re.Match[str]) -> ForeignHash:
    n, r, p = int(match[1]), int(match[3]), int(match[4])
    digest = _decode(match[5])
    if len(digest) != _DJANGO_SCRYPT_BYTES:
        raise ForeignHashError("scrypt: Django's must hold a hash of 64 bytes")
    return _build_scrypt(n, r, p, match[2].encode(), digest)


def _read_phc_scrypt(match: re.Match[str]) -> ForeignHash:
    n, r, p = 1 << int(match[1]), int(match[2]), int(match[3])
    salt, digest = _decode(match[4]), _decode(match[5])
    _require_sizes(digest, salt)
    return _build_scrypt(n, r, p, salt, digest)


def _build_scrypt(n: int, r: int, p: int, salt: bytes, digest: bytes) -> ForeignHash:
    # RFC 7914, section 2: N is less than 2 to the power of 128 * r / 8. OpenSSL raises
    # MemoryError for others, at each login.
    is_computable = n > 1 and n & (n - 1) == 0 and n.bit_length() - 1 < 16 * r
    memory = _SCRYPT_BLOCK_BYTES * n * r
    if (
        not is_computable
        or memory > _MAX_MEMORY_KIB * 1_024
        or n * r * p > _MAX_SCRYPT_WORK
    ):
        raise ForeignHashError(
            "scrypt: N must be a power of two below 2 ** (16 * r), 128 * N * r at most "
            f"{_MAX_MEMORY_KIB // 1_024} MiB, and N * r * p at most {_MAX_SCRYPT_WORK:,}"
        )
    return ForeignHash(
        Work(Family.SCRYPT, n * r * p), digest, _scrypt(salt, len(digest), n, r, p)
    )


# These objects compute once, so each call creates one.
def _pbkdf2(salt: bytes, length: int, iterations: int) -> Callable[[bytes], bytes]:
    return lambda key: PBKDF2HMAC(SHA256(), length, salt, iterations).derive(key)


def _argon2id(
    salt: bytes, length: int, memory: int, passes: int, lanes: int
) -> Callable[[bytes], bytes]:
    def build() -> Argon2id:
        return Argon2id(
            salt=salt,
            length=length,
            iterations=passes,
            lanes=lanes,
            memory_cost=memory,
        )

    build()  # with an old OpenSSL this raises here, not at the login
    return lambda key: build().derive(key)


def _scrypt(
    salt: bytes, length: int, n: int, r: int, p: int
) -> Callable[[bytes], bytes]:
    return lambda key: Scrypt(salt=salt, length=length, n=n, r=r, p=p).derive(key)


def _decode(text: str) -> bytes:
    """Return the bytes of base64 with or without its padding."""
    plain = text.rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except binascii.Error:
        raise ForeignHashError("must hold salt and hash in base64") from None


def _require_sizes(digest: bytes, salt: bytes) -> None:
    if len(digest) not in _DIGEST_BYTES:
        raise ForeignHashError("must hold a hash of 16 to 64 bytes")
    if len(salt) not in _SALT_BYTES:
        raise ForeignHashError("must hold a salt of 8 to 64 bytes")


_READERS: Final = {
    _PBKDF2: _read_pbkdf2,
    _ARGON2ID: _read_argon2id,
    _DJANGO_SCRYPT: _read_django_scrypt,
    _PHC_SCRYPT: _read_phc_scrypt,
}
