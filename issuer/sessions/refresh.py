"""Refresh tokens: their form, and what a presented one means. Touches nothing.

A token is `ghr_` and the base64url text of

    version 1 byte | family 16 bytes | generation 4 bytes | MAC 32 bytes

Only strings that we made have a valid MAC, so a stranger who invents one cannot trigger
reuse handling and log somebody out. The token of a generation follows from the key, the
family and the generation alone: a client that lost the answer can be given the same
successor again without anything being kept for it (requirement R29).
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
    """A refresh token that we made, as somebody presents it.

    Attributes:
        family_id: id of its family, a UUID as text.
        generation: how many rotations came before it.
        digest: SHA-256 of the whole token, as the database keeps it.
    """

    family_id: str
    generation: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class FamilyRecord:
    """What a decision about a family needs; times are Unix seconds.

    Attributes:
        generation: of the one token that may rotate next.
        current_digest: of that token.
        rotated_at: when it was made.
        expires_at: fixed at sign-in, however often the family rotates.
        revoked_at: None while the family lives.
    """

    generation: int
    current_digest: bytes
    rotated_at: int
    expires_at: int
    revoked_at: int | None


@dataclass(frozen=True, slots=True)
class RotationLimits:
    """How long refresh tokens count, in seconds.

    Attributes:
        grace: how long the same successor is given again; 0: never.
        idle_ttl: how long a family may rest between two rotations.
    """

    grace: int
    idle_ttl: int


@dataclass(frozen=True, slots=True)
class Rotate:
    """It is the current token: exchange it for that of `generation`."""

    generation: int


@dataclass(frozen=True, slots=True)
class Repeat:
    """It was exchanged just now and its successor is unused: give the same again."""


@dataclass(frozen=True, slots=True)
class Reuse:
    """It is spent: somebody has a copy, so the family must end (RFC 9700, 4.14.2)."""


@dataclass(frozen=True, slots=True)
class Expired:
    """The family is past its absolute or its idle lifetime."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """The family has ended."""


Decision = Rotate | Repeat | Reuse | Expired | Revoked


def decide_rotation(
    record: FamilyRecord, presented: PresentedToken, now: int, limits: RotationLimits
) -> Decision:
    """Decide what a presented refresh token of this family is worth.

    Args:
        record: the family as it stands.
        presented: a token of it.
        now: Unix seconds.
        limits: how long tokens count.
    """
    if record.revoked_at is not None:
        return Revoked()
    passed = now - record.rotated_at
    if now >= record.expires_at or passed >= limits.idle_ttl:
        return Expired()
    # A rotation in the future was dated by a clock that was ahead, and its true age is not
    # known: what lies further ahead than a bound is past that bound (requirement R53).
    # Within the grace it stays, since the clocks of replicas differ by a little.
    age = abs(passed)
    if hmac.compare_digest(presented.digest, record.current_digest):
        return Rotate(record.generation + 1) if age < limits.idle_ttl else Expired()
    if presented.generation == record.generation - 1 and age < limits.grace:
        return Repeat()
    # Older ones were spent. One of the current generation or a later one that is not
    # the current token was never handed out by this database: a copy of a key or of
    # the database is at work, which calls for the same answer.
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

    While keys are being exchanged, another process may have made it with another key
    of the ring than ours would.

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

    Anyone can write such a string. It proves nothing until its digest was found to be
    the current one of a family.

    Raises:
        InvalidGrantError: when it has not the form of a refresh token.
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
