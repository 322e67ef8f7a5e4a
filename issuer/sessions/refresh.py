"""Refresh tokens: their form, and the decision about a presented one. Pure.

A token is `ghr_` and the base64url text of

    version 1 byte | family 16 bytes | generation 4 bytes | MAC 32 bytes

Only strings of the issuer have a valid MAC, so an invented one cannot trigger reuse
handling and end a session. The token is derived from the key, the family and the
generation: a client that lost the answer gets the same successor again without stored
tokens (requirement R29).
"""

from __future__ import annotations

import hmac
import struct
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from issuer.errors import InvalidGrantError
from issuer.tokens.opaque_tokens import MacForm, OpaqueTokenError, digest_token

PREFIX: Final = "ghr_"
_VERSION: Final = 1
_BODY: Final = struct.Struct(">B16sI")
_FORM: Final = MacForm(PREFIX, _BODY.size, b"gatehouse refresh token")


@dataclass(frozen=True, slots=True)
class PresentedToken:
    """A refresh token of ours, as presented.

    Attributes:
        family_id: id of its family, a UUID as text.
        generation: number of rotations before it.
        digest: SHA-256 of the whole token, as in the database.
    """

    family_id: str
    generation: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class FamilyRecord:
    """The facts about a family for a decision; times are Unix seconds.

    Attributes:
        generation: of the only token that may rotate next.
        current_digest: of that token.
        rotated_at: when it was made.
        expires_at: fixed at sign-in; rotations do not change it.
        revoked_at: None while the family lives.
    """

    generation: int
    current_digest: bytes
    rotated_at: int
    expires_at: int
    revoked_at: int | None


@dataclass(frozen=True, slots=True)
class RefreshTimes:
    """How long refresh tokens are valid, in seconds.

    Attributes:
        grace: how long the same successor is returned again; 0: never.
        idle_ttl: the longest time between two rotations of a family.
    """

    grace: int
    idle_ttl: int


@dataclass(frozen=True, slots=True)
class Rotate:
    """It is the current token: exchange it for that of `generation`."""

    generation: int


@dataclass(frozen=True, slots=True)
class Repeat:
    """It was exchanged recently and its successor is unused: return the same again."""


@dataclass(frozen=True, slots=True)
class Reuse:
    """It is spent: there is a copy, so the family must end (RFC 9700, 4.14.2)."""


@dataclass(frozen=True, slots=True)
class Expired:
    """The family is past its absolute or its idle lifetime."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """The family has ended."""


Decision = Rotate | Repeat | Reuse | Expired | Revoked


def decide_rotation(
    record: FamilyRecord, presented: PresentedToken, now: int, limits: RefreshTimes
) -> Decision:
    """Return the decision about a presented refresh token of this family.

    Args:
        record: the present state of the family.
        presented: a token of it.
        now: Unix seconds.
        limits: how long tokens are valid.
    """
    if record.revoked_at is not None:
        return Revoked()
    passed = now - record.rotated_at
    if now >= record.expires_at or passed >= limits.idle_ttl:
        return Expired()
    # A rotation in the future was dated by a clock that was ahead, and its true age is
    # unknown: further ahead than a bound counts as past that bound (requirement R53).
    # The grace still applies to small differences, since the clocks of replicas differ
    # a little.
    age = abs(passed)
    if hmac.compare_digest(presented.digest, record.current_digest):
        return Rotate(record.generation + 1) if age < limits.idle_ttl else Expired()
    if presented.generation == record.generation - 1 and age < limits.grace:
        return Repeat()
    # Older tokens were spent. Another token of the current or a later generation was
    # never issued from this database: a copy of a key or of the database is in use,
    # which needs the same answer.
    return Reuse()


def make_token(family_id: str, generation: int, key: bytes) -> str:
    """Return the refresh token of this generation; the same for the same arguments.

    Args:
        family_id: a UUID as text.
        generation: from 0.
        key: one of `ISSUER_REFRESH_KEYS`.
    """
    body = _BODY.pack(_VERSION, uuid.UUID(family_id).bytes, generation)
    return _FORM.make(body, key)


def find_token(
    family_id: str, generation: int, digest: bytes, keys: Mapping[str, bytes]
) -> str:
    """Return the token of this generation that has this digest.

    During a change of keys, another process may have made it with another key of the
    ring.

    Raises:
        InvalidGrantError: when its key has left the ring.
    """
    for key in keys.values():
        token = make_token(family_id, generation, key)
        if hmac.compare_digest(digest_token(token), digest):
            return token
    raise InvalidGrantError(detail="the successor's key has left the ring")


def parse_token(token: str, keys: Mapping[str, bytes]) -> PresentedToken:
    """Read a refresh token; only strings that the issuer made pass.

    Raises:
        InvalidGrantError: for everything else.
    """
    try:
        body = _FORM.read(token, keys.values())
    except OpaqueTokenError:
        raise InvalidGrantError(detail="not a refresh token of ours") from None
    return _read_body(body, token)


def parse_unverified_token(token: str) -> PresentedToken:
    """Read a refresh token whose key may have left the ring; its MAC is not checked.

    Anyone can write such a string. It proves nothing unless its digest is the current
    one of a family.

    Raises:
        InvalidGrantError: when it does not have the form of a refresh token.
    """
    try:
        body = _FORM.read_unverified(token)
    except OpaqueTokenError:
        raise InvalidGrantError(detail="not a refresh token of ours") from None
    return _read_body(body, token)


def _read_body(body: bytes, token: str) -> PresentedToken:
    version, family, generation = _BODY.unpack(body)
    if version != _VERSION:
        raise InvalidGrantError(detail="not a refresh token of ours")
    return PresentedToken(str(uuid.UUID(bytes=family)), generation, digest_token(token))
