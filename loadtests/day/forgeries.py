"""Tokens that an attacker makes of a good one, without the issuer's key."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa


def _parts(token: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    header, claims, signature = token.split(".")
    return _read(header), _read(claims), signature


def _read(segment: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(base64.urlsafe_b64decode(segment + "=="))
    return read


def _write(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@cache
def _own_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def without_signature(token: str) -> str:
    """Return its claims under `alg` none (RFC 8725, section 2.1)."""
    header, claims, _ = _parts(token)
    return f"{_write(header | {'alg': 'none'})}.{_write(claims)}."


def signed_by_the_attacker(token: str) -> str:
    """Return its claims, signed with another key under the issuer's key id."""
    header, claims, _ = _parts(token)
    headers = {"kid": header["kid"], "typ": header["typ"]}
    return jwt.encode(claims, _own_key(), "RS256", headers=headers)


def with_a_secret_for_a_key(token: str) -> str:
    """Return its claims, signed by HMAC with what everybody knows (CVE-2015-9235)."""
    header, claims, _ = _parts(token)
    known = header["kid"].encode().ljust(32, b"0")
    headers = {"kid": header["kid"], "typ": header["typ"]}
    return jwt.encode(claims, known, "HS256", headers=headers)


def with_more_rights(token: str) -> str:
    """Return it with a scope of the attacker's, and the signature as it was."""
    header, _, signature = token.split(".")
    _, claims, _ = _parts(token)
    return f"{header}.{_write(claims | {'scope': 'gatehouse:admin'})}.{signature}"


def with_a_longer_life(token: str) -> str:
    """Return it with a later end, and the signature as it was."""
    header, _, signature = token.split(".")
    _, claims, _ = _parts(token)
    return f"{header}.{_write(claims | {'exp': claims['exp'] + 3600})}.{signature}"


def with_a_key_of_its_own(token: str) -> str:
    """Return it with the attacker's key in its header (CVE-2018-0114)."""
    header, claims, _ = _parts(token)
    key = jwt.algorithms.RSAAlgorithm.to_jwk(_own_key().public_key(), as_dict=True)
    headers = {"kid": header["kid"], "typ": header["typ"], "jwk": key}
    return jwt.encode(claims, _own_key(), "RS256", headers=headers)


def cut_short(token: str) -> str:
    """Return it without its last ten characters."""
    return token[:-10]


def garbage(token: str) -> str:
    """Return what is no token, of the same length."""
    return "A" * len(token)


def too_large(token: str) -> str:
    """Return one of 9,000 bytes; the longest that is read has 8,000."""
    return token + "A" * max(0, 9_000 - len(token))


FORGERIES: tuple[Callable[[str], str], ...] = (
    without_signature,
    signed_by_the_attacker,
    with_a_secret_for_a_key,
    with_more_rights,
    with_a_longer_life,
    with_a_key_of_its_own,
    cut_short,
    garbage,
    too_large,
)


def end_of(token: str) -> int:
    """Return the token's end, Unix seconds."""
    end: int = _parts(token)[1]["exp"]
    return end
