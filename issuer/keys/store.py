"""The signing keys as this process sees them: one snapshot, at most a second old.

Other processes rotate too, so a use after a second reads it again. A rotation of this
process drops it at once.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import orjson
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    RSAPublicKey,
    RSAPublicNumbers,
    generate_private_key,
)
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from issuer.clock import Clock, seconds
from issuer.errors import DatabaseTroubleError, UnavailableError
from issuer.keys.encryption import decrypt_private_key, encrypt_private_key
from issuer.settings.issuer_settings import IssuerSettings
from issuer.storage.db import Database
from issuer.storage.shared_reads import SharedReads
from issuer.storage.tables.keys import SigningKey
from shared.claims import LONGEST_ACCESS_TTL, RSA_EXPONENT
from shared.jose import base64url
from shared.jose.jwk import RsaPublicJwk

_SNAPSHOT_AGE_MS: Final = 1_000
#: Greatest age of the snapshot that is published while the database is away.
_LAST_AGE_MS: Final = LONGEST_ACCESS_TTL * 1_000


class KeyState(StrEnum):
    """The life of a signing key, in this order."""

    NEXT = "next"  #: published, does not sign yet
    ACTIVE = "active"  #: signing; at most one
    RETIRING = "retiring"  #: does not sign any more, its tokens may be valid
    GONE = "gone"  #: not published any more


PUBLISHED: Final = (KeyState.NEXT, KeyState.ACTIVE, KeyState.RETIRING)
#: The order of the keys in the JWKS: its ETag is the same in every process.
PUBLISHED_ORDER: Final = (SigningKey.created_at, SigningKey.kid)


@dataclass(frozen=True, slots=True)
class ActiveSigningKey:
    """The key that signs now; tokens name it by `kid`."""

    kid: str
    private_key: RSAPrivateKey


@dataclass(frozen=True, slots=True)
class PublishedKeys:
    """The JWKS as bytes, `{"keys": [...]}` in order of creation, and its strong ETag.

    `is_current` is false while the database is away and these are the last known keys.
    """

    body: bytes
    etag: str
    is_current: bool = True


@dataclass(frozen=True, slots=True)
class _Snapshot:
    read_at_ms: int
    signing_key: ActiveSigningKey | None
    verification_keys: Mapping[str, RSAPublicKey]
    published: PublishedKeys


class KeyStore:
    """Reads the signing keys and makes the first one.

    Args:
        database: has the keys.
        settings: give the keys that encrypt private halves, and the size of a new key.
        clock: gives the time in milliseconds.
    """

    def __init__(
        self, database: Database, settings: IssuerSettings, clock: Clock
    ) -> None:
        self._database = database
        self._key_ring = settings.key_encryption_keys
        self._rsa_bits = settings.rsa_bits
        self._clock = clock
        self._snapshot: _Snapshot | None = None
        #: Counts calls of `forget`: a read that began before the last call is not
        #: stored.
        self._changes = 0
        self._reads: SharedReads[None, _Snapshot] = SharedReads()
        self._read_again_at_ms = 0

    async def signing_key(self) -> ActiveSigningKey:
        """Return the active key.

        Raises:
            UnavailableError: when there is none, it cannot be opened, or the database
                is away.
        """
        signing_key = (await self._current()).signing_key
        if signing_key is None:
            raise UnavailableError(detail="there is no active signing key")
        return signing_key

    async def verification_keys(self, kid: str) -> Mapping[str, RSAPublicKey]:
        """Return the public halves of all published keys by kid.

        Another process may have changed the keys since the last read, so an unknown
        `kid` causes one more. Concurrent callers share it: one read runs at a time,
        however many unknown ids are presented.

        Args:
            kid: the id that the caller needs.

        Raises:
            UnavailableError: when the database is away.
        """
        found = (await self._current()).verification_keys
        if kid not in found:
            found = (await self._reads.get(None, self._refresh)).verification_keys
        return found

    async def published_keys(self) -> PublishedKeys:
        """Return the JWKS to publish: public members only.

        While the database is away this is the last snapshot, for an hour: no token
        minted before lives longer. A snapshot from before a change by this process is
        never returned.

        Raises:
            UnavailableError: when the database is away and there are none.
        """
        last, now = self._snapshot, self._clock()
        is_usable = last is not None and 0 <= now - last.read_at_ms < _LAST_AGE_MS
        # For a second after a failed read no caller waits for another read.
        is_away = 0 < self._read_again_at_ms - now <= _SNAPSHOT_AGE_MS
        if last is not None and is_usable and is_away:
            return replace(last.published, is_current=False)
        try:
            return (await self._current()).published
        except DatabaseTroubleError:
            if last is None or not is_usable or self._snapshot is not last:
                raise
            self._read_again_at_ms = self._clock() + _SNAPSHOT_AGE_MS
            return replace(last.published, is_current=False)

    async def ensure_active(self) -> None:
        """Make the first key if there is none.

        Several processes may start at once: the partial unique index lets one insert
        succeed, and the others use that key.

        Raises:
            UnavailableError: when the active key cannot be opened, or the database is
                away.
        """
        self.forget()
        if (await self._current()).signing_key is None:
            key = await self.generate(KeyState.ACTIVE)
            try:
                async with self._database.write() as db:
                    db.add(key)
            except IntegrityError:
                pass  # another process was first
            self.forget()
        await self.signing_key()

    async def generate(self, state: KeyState) -> SigningKey:
        """Return a new key as a row that is not yet stored; takes some 0.1 s of a core.

        It is made on a thread, outside of any transaction, so no other request waits.
        """
        private_key = await asyncio.to_thread(
            generate_private_key, RSA_EXPONENT, self._rsa_bits
        )
        jwk = RsaPublicJwk.with_thumbprint(private_key.public_key().public_numbers().n)
        now = seconds(self._clock)
        return SigningKey(
            kid=jwk.kid,
            state=state.value,
            public_jwk=orjson.dumps(jwk.to_wire()).decode(),
            private_encrypted=encrypt_private_key(
                private_key, kid=jwk.kid, key_ring=self._key_ring
            ),
            kek_id=self._key_ring.current_id,
            created_at=now,
            activated_at=now if state is KeyState.ACTIVE else None,
        )

    def forget(self) -> None:
        """Drop the snapshot: the keys were just changed."""
        self._snapshot = None
        self._changes += 1

    async def _current(self) -> _Snapshot:
        snapshot = self._snapshot
        if snapshot is not None and self._is_young(snapshot):
            return snapshot
        return await self._reads.get(None, self._refresh)

    async def _refresh(self) -> _Snapshot:
        changes = self._changes
        snapshot = await self._read(self._snapshot)
        if changes == self._changes:
            self._snapshot = snapshot
        return snapshot

    def _is_young(self, snapshot: _Snapshot) -> bool:
        return 0 <= self._clock() - snapshot.read_at_ms < _SNAPSHOT_AGE_MS

    async def _read(self, previous: _Snapshot | None) -> _Snapshot:
        read_at_ms = self._clock()
        async with self._database.read() as db:
            rows = (
                await db.scalars(
                    select(SigningKey)
                    .where(SigningKey.state.in_(PUBLISHED))
                    .order_by(*PUBLISHED_ORDER)
                )
            ).all()
        jwks = [read_jwk(row) for row in rows]
        return _Snapshot(
            read_at_ms=read_at_ms,
            signing_key=self._open_active(rows, previous),
            verification_keys={
                jwk.kid: RSAPublicNumbers(jwk.e, jwk.n).public_key() for jwk in jwks
            },
            published=build_jwks(jwks),
        )

    def _open_active(
        self, rows: Sequence[SigningKey], previous: _Snapshot | None
    ) -> ActiveSigningKey | None:
        row = next((row for row in rows if row.state == KeyState.ACTIVE), None)
        if row is None:
            return None
        known = previous.signing_key if previous else None
        if known is not None and known.kid == row.kid:
            return known
        private_key = decrypt_private_key(
            row.private_encrypted or b"",
            kid=row.kid,
            kek_id=row.kek_id,
            key_ring=self._key_ring,
        )
        return ActiveSigningKey(row.kid, private_key)


def build_jwks(jwks: Sequence[RsaPublicJwk]) -> PublishedKeys:
    """Return the JWKS of these keys, in order of creation."""
    body = orjson.dumps({"keys": [jwk.to_wire() for jwk in jwks]})
    digest = base64url.encode(hashlib.sha256(body).digest())
    return PublishedKeys(body=body, etag=f'"{digest}"')


def read_jwk(row: SigningKey) -> RsaPublicJwk:
    """Return the public half of a stored key."""
    return RsaPublicJwk.from_wire(orjson.loads(row.public_jwk))
