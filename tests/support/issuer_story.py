"""Steps that tests of the issuer share, each in one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
import orjson
from sqlalchemy import func, select

from issuer.storage.tables.audit import AuditEvent, AuditUnlinked
from issuer.storage.tables.feed import FeedEntryRow
from shared.jose import base64url
from tests.support.issuer_harness import IssuerHarness
from tests.support.processes import eventually

PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class Tokens:
    """The tokens of one session."""

    access_token: str
    refresh_token: str

    @property
    def bearer(self) -> dict[str, str]:
        """The header that shows the access token."""
        return {"Authorization": f"Bearer {self.access_token}"}

    @property
    def claims(self) -> dict[str, Any]:
        """The access token's claims."""
        claims = read_segment(self.access_token, 1)
        assert isinstance(claims, dict)
        return claims

    @property
    def sid(self) -> str:
        """The session."""
        return str(self.claims["sid"])


def read_segment(token: str, index: int) -> Any:
    """Return one decoded JSON segment of a JWT, unverified."""
    return orjson.loads(base64url.decode(token.split(".")[index].encode()))


def read_tokens(response: httpx.Response) -> Tokens:
    """Return the tokens of an answer that must be 200."""
    assert response.status_code == 200, response.text
    body = response.json()
    return Tokens(body["access_token"], body["refresh_token"])


async def post_login(
    issuer: IssuerHarness, username: str = "alice", password: str = PASSWORD
) -> httpx.Response:
    """Try to log in."""
    return await issuer.client.post(
        "/auth/login", json={"username": username, "password": password}
    )


async def log_in(
    issuer: IssuerHarness, username: str = "alice", password: str = PASSWORD
) -> Tokens:
    """Log in, which must succeed."""
    return read_tokens(await post_login(issuer, username, password))


async def post_refresh(issuer: IssuerHarness, token: str) -> httpx.Response:
    """Try to exchange a refresh token."""
    return await issuer.client.post("/auth/refresh", json={"refresh_token": token})


async def refresh(issuer: IssuerHarness, token: str) -> Tokens:
    """Exchange a refresh token, which must succeed."""
    return read_tokens(await post_refresh(issuer, token))


async def is_accepted(issuer: IssuerHarness, tokens: Tokens) -> bool:
    """Return whether the issuer's own endpoints take the access token."""
    answer = await issuer.client.get("/auth/sessions", headers=tokens.bearer)
    assert answer.status_code in {200, 401}, answer.text
    return answer.status_code == 200


async def read_feed(issuer: IssuerHarness) -> list[tuple[str, str, int]]:
    """Return all entries of the feed as (kind, key, minimum_generation)."""
    async with issuer.database.read() as db:
        rows = await db.scalars(select(FeedEntryRow).order_by(FeedEntryRow.seq))
        return [(row.kind, row.key, row.minimum_generation) for row in rows]


async def read_audit(issuer: IssuerHarness, event: str) -> list[dict[str, Any]]:
    """Return all audit rows of one event, oldest first, `facts` decoded."""
    async with issuer.database.read() as db:
        rows = await db.scalars(
            select(AuditEvent).where(AuditEvent.event == event).order_by(AuditEvent.id)
        )
        return [
            {
                "actor": row.actor,
                "subject": row.subject,
                "address": row.address,
                "facts": orjson.loads(row.facts),
            }
            for row in rows
        ]


async def link_audit(issuer: IssuerHarness) -> None:
    """Link every audit event; the issuer's own linker may be at work meanwhile."""

    async def is_linked() -> bool:
        await issuer.issuer.audit.linker.link()
        async with issuer.database.read() as db:
            query = select(func.count()).select_from(AuditUnlinked)
            return await db.scalar(query) == 0

    await eventually(is_linked, what="every audit event is linked")


def is_invalid_grant(answer: httpx.Response) -> bool:
    """Return whether a refresh was refused as it must be outside of /oauth2/."""
    return answer.status_code == 401 and answer.json()["code"] == "invalid_grant"
