"""The signed lists: built from the revoked positions, kept while unchanged.

A list is checked once a second at most, and signed again when a bit was set, the
signing key has changed, or it is as old as its `ttl`.
"""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from dataclasses import dataclass, replace
from typing import Final

import jwt
from sqlalchemy import select

from issuer.errors import NotFoundError
from issuer.exports.status_list import LIST_SIZE, LISTS_PATH
from issuer.foundation import Foundation
from issuer.keys.store import ActiveSigningKey, KeyStore
from issuer.storage.tables.status_lists import StatusIndex, StatusListHead
from shared.claims import ALGORITHM
from shared.jose import base64url

TYP: Final = "statuslist+jwt"
_LOOK_AGAIN_MS: Final = 1_000
#: A list is valid for this many times its `ttl`, so that readers survive an outage of
#: the issuer.
_LIFETIMES: Final = 5


@dataclass(frozen=True, slots=True)
class StatusListToken:
    """A signed list and its strong ETag."""

    token: str
    etag: str


@dataclass(frozen=True, slots=True)
class _Kept:
    looked_at_ms: int
    signed_at_ms: int
    kid: str
    revoked: frozenset[int]
    signed: StatusListToken


class StatusLists:
    """Publishes the lists.

    Args:
        base: gives the database, the clock and the settings.
        keys: sign the lists.
    """

    def __init__(self, base: Foundation, keys: KeyStore) -> None:
        self._database = base.database
        self._keys = keys
        self._clock = base.clock
        self._issuer_url = base.settings.url
        self.ttl = base.settings.status_list_ttl
        self._kept: dict[int, _Kept] = {}
        self._building = asyncio.Lock()

    async def uris(self) -> list[str]:
        """Return the URLs of all lists.

        Raises:
            UnavailableError: when the database is away.
        """
        count = await self._count_lists()
        return [self._uri(number) for number in range(count)]

    async def get(self, number: int) -> StatusListToken:
        """Return a signed list.

        Raises:
            NotFoundError: when there is no list with this number.
            UnavailableError: when there is no signing key, or the database is away.
        """
        async with self._building:
            now_ms = self._clock()
            kept = self._kept.get(number)
            if kept is not None and 0 <= now_ms - kept.looked_at_ms < _LOOK_AGAIN_MS:
                return kept.signed
            if kept is None and number >= await self._count_lists():
                raise NotFoundError
            key = await self._keys.signing_key()
            revoked = await self._read_revoked(number)
            if (
                kept is not None
                and kept.kid == key.kid
                and kept.revoked == revoked
                and 0 <= now_ms - kept.signed_at_ms < self.ttl * 1_000
            ):
                kept = replace(kept, looked_at_ms=now_ms)
            else:
                signed = self._sign(number, revoked, key, now_ms // 1_000)
                kept = _Kept(now_ms, now_ms, key.kid, revoked, signed)
            self._kept[number] = kept
            return kept.signed

    def _sign(
        self, number: int, revoked: frozenset[int], key: ActiveSigningKey, now: int
    ) -> StatusListToken:
        token = jwt.encode(
            {
                "iss": self._issuer_url,
                "sub": self._uri(number),
                "iat": now,
                "exp": now + _LIFETIMES * self.ttl,
                "ttl": self.ttl,
                "status_list": {
                    "bits": 1,
                    "lst": encode_bits(revoked),
                    "aggregation_uri": self._issuer_url + LISTS_PATH,
                },
            },
            key.private_key,
            algorithm=ALGORITHM,
            headers={"typ": TYP, "kid": key.kid},
        )
        digest = base64url.encode(hashlib.sha256(token.encode()).digest())
        return StatusListToken(token, f'"{digest}"')

    def _uri(self, number: int) -> str:
        return f"{self._issuer_url}{LISTS_PATH}/{number}"

    async def _count_lists(self) -> int:
        async with self._database.read() as db:
            allotted = await db.scalar(
                select(StatusListHead.allotted).where(StatusListHead.id == 1)
            )
        return -(-(allotted or 0) // LIST_SIZE)

    async def _read_revoked(self, number: int) -> frozenset[int]:
        first = number * LIST_SIZE
        async with self._database.read() as db:
            positions = await db.scalars(
                select(StatusIndex.position).where(
                    StatusIndex.revoked_at.is_not(None),
                    StatusIndex.position >= first,
                    StatusIndex.position < first + LIST_SIZE,
                )
            )
            return frozenset(position - first for position in positions)


def encode_bits(revoked: frozenset[int], size: int = LIST_SIZE) -> str:
    """Return `lst`: one bit per index, the least significant first (draft, section 4).

    Args:
        revoked: the indices whose bit is 1.
        size: bits in the list, a multiple of eight.
    """
    bits = bytearray(size // 8)
    for index in revoked:
        bits[index >> 3] |= 1 << (index & 7)
    return base64url.encode(zlib.compress(bytes(bits), 9))
