"""Pushes the outbox to its endpoints (RFC 8935), again until it is taken.

An event is claimed by moving its next attempt past the longest one can take, in a
transaction of its own; no row is locked while the network is waited for. On PostgreSQL
SKIP LOCKED lets several issuers claim at once and none the same. A process that dies
between claim and answer leaves an event that is sent again: receivers know it by `jti`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import httpx
import orjson
from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.clock import Clock, seconds
from issuer.db import Database
from issuer.event_endpoints import EventEndpoint
from issuer.exports.security_events import TYP, sign_event
from issuer.keys.store import ActiveSigningKey, KeyStore
from issuer.models import SecurityEvent
from shared import log
from shared.claims import is_plain_text

#: Seconds an attempt may take, answer included.
_TIMEOUT: Final = 10.0
#: Seconds a claimed event is nobody else's.
_LEASE: Final = 60
_BATCH: Final = 16
_MAX_ANSWER_BYTES: Final = 4_096
#: Seconds between two attempts, at first and at most.
_FIRST_DELAY: Final = 2
_LONGEST_DELAY: Final = 900
#: Seconds a refused event stays, for the operator to look at.
_KEPT: Final = 30 * 86_400
_ERROR_CODE: Final = re.compile(r"[A-Za-z_]{1,64}")
_logger = logging.getLogger(__name__)


class Attempt(NamedTuple):
    """How an attempt ended.

    Attributes:
        is_taken: the receiver has it now.
        is_final: it will not take it, ever: nothing is to be repeated.
        told: what is recorded of a failure.
    """

    is_taken: bool = False
    is_final: bool = False
    told: str = ""


def next_delay(attempts: int, chance: float) -> int:
    """Return the seconds until the next attempt: doubled each time, half of it by chance.

    Args:
        attempts: how many were made, from 1.
        chance: from 0 to 1; keeps replicas and events from coming back together.
    """
    whole = min(_FIRST_DELAY << min(attempts - 1, 16), _LONGEST_DELAY)
    return max(1, round(whole * (1 + chance) / 2))


class EventDelivery:
    """Delivers the events of every endpoint.

    Args:
        database: where the outbox is.
        keys: sign.
        endpoints: where to.
        clock: gives the time in milliseconds.
        issuer_url: the `iss` of every event.
        retry_for: seconds from the event during which it is tried again.
        count: told endpoint and outcome of each attempt: `delivered`, `refused`,
            `retried` or `given_up`.
        on_waiting: told endpoint and the seconds its oldest event has waited.
    """

    def __init__(
        self,
        database: Database,
        keys: KeyStore,
        endpoints: Sequence[EventEndpoint],
        *,
        clock: Clock,
        issuer_url: str,
        retry_for: int,
        count: Callable[[str, str], None],
        on_waiting: Callable[[str, int], None],
    ) -> None:
        self._database = database
        self._keys = keys
        self._endpoints = tuple(endpoints)
        self._clock = clock
        self._issuer_url = issuer_url
        self._retry_for = retry_for
        self._count = count
        self._on_waiting = on_waiting
        self._client: httpx.AsyncClient | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def deliver_due(self) -> None:
        """Attempt every event whose time has come; endpoints do not wait for each other.

        Raises:
            UnavailableError: when the database is away, or there is no signing key.
        """
        done = await asyncio.gather(
            *(self._deliver_to(endpoint) for endpoint in self._endpoints),
            return_exceptions=True,
        )
        for outcome in done:
            if isinstance(outcome, BaseException):
                raise outcome

    async def prune(self) -> None:
        """Delete refused events that were kept long enough, and those of endpoints that
        are in no setting any more.

        Raises:
            UnavailableError: when the database is away.
        """
        before = seconds(self._clock) - _KEPT
        names = [endpoint.name for endpoint in self._endpoints]
        async with self._database.write() as db:
            await db.execute(
                delete(SecurityEvent).where(
                    SecurityEvent.event_at < before,
                    SecurityEvent.failed_at.is_not(None)
                    | SecurityEvent.endpoint.not_in(names),
                )
            )

    async def _deliver_to(self, endpoint: EventEndpoint) -> None:
        while True:
            oldest = await self._find_oldest(endpoint)
            age = 0 if oldest is None else max(seconds(self._clock) - oldest, 0)
            self._on_waiting(endpoint.name, age)
            if oldest is None:
                return
            # Before claiming: without a key nothing is to be put off.
            key = await self._keys.signing_key()
            claimed = await self._claim(endpoint)
            attempts = await asyncio.gather(
                *(self._attempt(endpoint, event, key) for event in claimed)
            )
            if claimed:
                await self._settle(endpoint, list(zip(claimed, attempts, strict=True)))
            # An endpoint that takes nothing is not asked for the rest of the queue.
            if len(claimed) < _BATCH or not any(a.is_taken for a in attempts):
                return

    async def _find_oldest(self, endpoint: EventEndpoint) -> int | None:
        # Reading first: SQLite's one write lock is not taken every second for nothing.
        async with self._database.read() as db:
            return await db.scalar(
                select(func.min(SecurityEvent.event_at)).where(
                    SecurityEvent.endpoint == endpoint.name,
                    SecurityEvent.failed_at.is_(None),
                )
            )

    async def _claim(self, endpoint: EventEndpoint) -> Sequence[SecurityEvent]:
        now = seconds(self._clock)
        async with self._database.write() as db:
            found = await db.scalars(
                select(SecurityEvent)
                .where(
                    SecurityEvent.endpoint == endpoint.name,
                    SecurityEvent.failed_at.is_(None),
                    SecurityEvent.next_attempt_at <= now,
                )
                .order_by(SecurityEvent.next_attempt_at)
                .limit(_BATCH)
                .with_for_update(skip_locked=True)
            )
            events = found.all()
            for event in events:
                event.attempts += 1
                event.next_attempt_at = now + _LEASE
        return events

    async def _attempt(
        self, endpoint: EventEndpoint, event: SecurityEvent, key: ActiveSigningKey
    ) -> Attempt:
        signed = sign_event(
            event, key, issuer_url=self._issuer_url, audience=endpoint.audience
        )
        if self._client is None:
            self._client = _make_client()
        try:
            async with asyncio.timeout(_TIMEOUT):
                return await push(self._client, endpoint, signed)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            return Attempt(told=type(error).__name__)

    async def _settle(
        self,
        endpoint: EventEndpoint,
        attempted: Sequence[tuple[SecurityEvent, Attempt]],
    ) -> None:
        """Write down how it went, in one transaction, then count."""
        outcomes: list[tuple[str, str]] = []
        async with self._database.write() as db:
            taken = [event.id for event, attempt in attempted if attempt.is_taken]
            if taken:
                await db.execute(
                    delete(SecurityEvent).where(SecurityEvent.id.in_(taken))
                )
                outcomes += [("delivered", "")] * len(taken)
            for event, attempt in attempted:
                if not attempt.is_taken:
                    outcome = await self._reschedule(db, event, attempt)
                    outcomes.append((outcome, attempt.told))
        for outcome, told in outcomes:
            self._count(endpoint.name, outcome)
            if outcome != "delivered":
                level = logging.INFO if outcome == "retried" else logging.ERROR
                log.event(
                    _logger,
                    level,
                    f"security_event.{outcome}",
                    endpoint=endpoint.name,
                    told=told,
                )

    async def _reschedule(
        self, db: AsyncSession, event: SecurityEvent, attempt: Attempt
    ) -> str:
        now = seconds(self._clock)
        is_late = now - event.event_at >= self._retry_for
        change = update(SecurityEvent).where(SecurityEvent.id == event.id)
        if attempt.is_final or is_late:
            await db.execute(change.values(failed_at=now, failure=attempt.told[:256]))
            return "refused" if attempt.is_final else "given_up"
        delay = next_delay(event.attempts, random.random())  # noqa: S311  no secret
        await db.execute(change.values(next_attempt_at=now + delay))
        return "retried"


async def push(
    client: httpx.AsyncClient, endpoint: EventEndpoint, signed: str
) -> Attempt:
    """Post one event and tell how the receiver answered (RFC 8935, section 2).

    202 is the one answer that takes it. A 400 with an error object is the receiver's
    last word. Everything else, a redirect included, is worth another attempt.

    Raises:
        httpx.HTTPError: when no answer came.
    """
    headers = {
        "Authorization": f"Bearer {endpoint.token.get_secret_value()}",
        "Content-Type": f"application/{TYP}",
        "Accept": "application/json",
    }
    async with client.stream(
        "POST", endpoint.url, content=signed.encode(), headers=headers
    ) as answer:
        if answer.status_code == httpx.codes.ACCEPTED:
            return Attempt(is_taken=True)
        told = f"status {answer.status_code}"
        if answer.status_code != httpx.codes.BAD_REQUEST:
            return Attempt(told=told)
        body = b""
        async for piece in answer.aiter_raw():
            body += piece
            if len(body) > _MAX_ANSWER_BYTES:
                return Attempt(told=told)
    return _read_error(body)


def _read_error(body: bytes) -> Attempt:
    """RFC 8935, section 2.3: `{"err": code, "description": text}`."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        said = None
    code = said.get("err") if isinstance(said, dict) else None
    if not isinstance(code, str) or not _ERROR_CODE.fullmatch(code):
        return Attempt(told="status 400 without an error")
    description = said.get("description")
    if isinstance(description, str) and is_plain_text(description):
        return Attempt(is_final=True, told=f"{code}: {description}"[:256])
    return Attempt(is_final=True, told=code)


def _make_client() -> httpx.AsyncClient:
    return httpx.AsyncClient(
        timeout=_TIMEOUT,
        # R21: what is configured is asked and nobody else, whatever the answer or the
        # environment's proxy says.
        follow_redirects=False,
        trust_env=False,
        limits=httpx.Limits(max_connections=_BATCH * 2),
    )
