"""CAEP `session-revoked` events: written with the revocation, signed at sending.

OpenID CAEP 1.0, section 3.1; a token of RFC 8417. An event is a row of the outbox,
written in the transaction of the feed entry. The end of a session, of a personal key
and of all sessions of a user are sent, with the user. Revocations of a single token, a
client or a signing key concern no session and are not sent.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Final

import jwt
import orjson
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.clock import seconds
from issuer.feed.feed import Revocation
from issuer.foundation import Foundation
from issuer.keys.store import ActiveSigningKey
from issuer.settings.event_endpoints import EventEndpoint
from issuer.storage.tables.personal_keys import PersonalKey
from issuer.storage.tables.security_events import SecurityEvent
from issuer.storage.tables.sessions import Session
from shared.claims import ALGORITHM
from shared.feed import EntryKind

#: RFC 8417, section 2.3: its own type, so that it cannot be taken for another token
#: (R23).
TYP: Final = "secevent+jwt"
SESSION_REVOKED: Final = (
    "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
)


class SecurityEventOutbox:
    """Writes the events of revocations.

    Args:
        base: gives the settings and the clock.
    """

    def __init__(self, base: Foundation) -> None:
        self._endpoints = tuple(base.settings.caep_endpoints)
        self._clock = base.clock
        self._issuer_url = base.settings.url

    def replace_endpoints(self, endpoints: Sequence[EventEndpoint]) -> None:
        """Write for these endpoints from the next event on."""
        self._endpoints = tuple(endpoints)

    async def write(self, db: AsyncSession, revocations: Sequence[Revocation]) -> None:
        """Write one row per event and endpoint (a `feed.WriteAlso`)."""
        now = seconds(self._clock)
        txn = str(uuid.uuid4())
        rows = [
            {
                "id": str(uuid.uuid4()),
                "endpoint": endpoint.name,
                "sub_id": orjson.dumps(sub_id).decode(),
                "txn": txn,
                "event_at": now,
                "attempts": 0,
                "next_attempt_at": now,
            }
            for sub_id in await self._find_subjects(db, revocations)
            for endpoint in self._endpoints
        ]
        if rows:
            await db.execute(insert(SecurityEvent), rows)

    async def _find_subjects(
        self, db: AsyncSession, revocations: Sequence[Revocation]
    ) -> list[dict[str, Any]]:
        sids = [item.key for item in revocations if item.kind is EntryKind.SID]
        owners: dict[str, str] = {}
        if sids:
            # The `sid` in a personal key's tokens is the key's id.
            found = await db.execute(
                select(Session.sid, Session.user_id)
                .where(Session.sid.in_(sids))
                .union_all(
                    select(PersonalKey.id, PersonalKey.user_id).where(
                        PersonalKey.id.in_(sids)
                    )
                )
            )
            owners = {row.sid: row.user_id for row in found}
        subjects: list[dict[str, Any]] = []
        for item in revocations:
            if item.kind is EntryKind.SID:
                subjects.append(self._name_session(item.key, owners.get(item.key)))
            elif item.kind is EntryKind.USER:
                subjects.append(self._name_user(item.key))
        return subjects

    def _name_session(self, sid: str, user_id: str | None) -> dict[str, Any]:
        """Return a complex subject (SSF 1.0, section 3); a client's grant has no
        `user`.
        """
        subject: dict[str, Any] = {
            "format": "complex",
            "session": {"format": "opaque", "id": sid},
        }
        if user_id is not None:
            subject["user"] = self._name_user(user_id)
        return subject

    def _name_user(self, user_id: str) -> dict[str, str]:
        return {"format": "iss_sub", "iss": self._issuer_url, "sub": user_id}


def sign_event(
    event: SecurityEvent, key: ActiveSigningKey, *, issuer_url: str, audience: str
) -> str:
    """Return the event as a signed token, the same claims at every attempt.

    It has neither `sub` nor `exp` (RFC 8417, sections 2.2 and 4.6), so that it cannot
    be taken for an access token.
    """
    claims = {
        "iss": issuer_url,
        "aud": audience,
        "iat": event.event_at,
        "jti": event.id,
        "txn": event.txn,
        "sub_id": orjson.loads(event.sub_id),
        "events": {SESSION_REVOKED: {"event_timestamp": event.event_at}},
    }
    return jwt.encode(
        claims,
        key.private_key,
        algorithm=ALGORITHM,
        headers={"typ": TYP, "kid": key.kid},
    )
