"""Pushes the outbox to its endpoints (RFC 8935), and repeats until they accept.

An event is claimed by moving its next attempt past the longest duration of one, in its
own transaction; no row is locked during the network call. On PostgreSQL SKIP LOCKED
gives concurrent issuers different events. If a process dies between claim and answer,
the event is sent again: receivers recognise it by its `jti`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from typing import Final

import httpx
from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.clock import seconds
from issuer.exports.event_push import TIMEOUT, DeliveryAttempt, failed, push
from issuer.exports.security_events import sign_event
from issuer.foundation import Foundation
from issuer.keys.store import ActiveSigningKey, KeyStore
from issuer.settings.event_endpoints import EventEndpoint
from issuer.storage.lifetimes import lies_ahead
from issuer.storage.tables.security_events import SecurityEvent
from shared import log
from shared.outgoing.authorities import Authorities, AuthoritiesError
from shared.outgoing.connections import Connections
from shared.outgoing.failure_log import FailureLog
from shared.outgoing.failures import TEXTS, FailureKind, explain, shown_url

#: Seconds a claimed event is reserved.
_LEASE: Final = 60
_BATCH: Final = 16
#: Seconds between two attempts: the first and the greatest interval.
_FIRST_DELAY: Final = 2
_LONGEST_DELAY: Final = 900
#: Seconds a refused event is kept for the operator.
_KEPT: Final = 30 * 86_400
_LOG = logging.getLogger(__name__)


def next_delay(attempts: int, chance: float) -> int:
    """Return the seconds until the next attempt: doubled each time, half of it random.

    Args:
        attempts: number of attempts made, from 1.
        chance: random, from 0 to 1; spreads the attempts of replicas and events.
    """
    whole = min(_FIRST_DELAY << min(attempts - 1, 16), _LONGEST_DELAY)
    return max(1, round(whole * (1 + chance) / 2))


class EventDelivery:
    """Delivers the events of every endpoint.

    Args:
        base: gives the database, the clock, the settings and the metrics.
        keys: sign the events.
    """

    def __init__(self, base: Foundation, keys: KeyStore) -> None:
        self._database = base.database
        self._keys = keys
        self._endpoints = tuple(base.settings.caep_endpoints)
        self._clock = base.clock
        self._issuer_url = base.settings.url
        self._retry_for = base.settings.caep_retry_for
        self._count = base.metrics.security_event
        self._on_waiting = base.metrics.security_event_waiting
        self._on_endpoint = base.metrics.security_event_endpoint
        self._ca_file = base.settings.ca_file
        self._connections: Connections | None = None
        self._connecting = asyncio.Lock()
        self._logs = {e.name: _make_log(e) for e in base.settings.caep_endpoints}
        for endpoint in self._endpoints:
            self._on_endpoint(endpoint.name)

    def replace_endpoints(self, endpoints: Sequence[EventEndpoint]) -> None:
        """Deliver to these endpoints from the next round on."""
        known = {e.name: e.url for e in self._endpoints}
        self._endpoints = tuple(endpoints)
        self._logs = {
            e.name: self._logs[e.name] if known.get(e.name) == e.url else _make_log(e)
            for e in endpoints
        }
        for endpoint in endpoints:
            self._on_endpoint(endpoint.name)
        for name in known.keys() - self._logs.keys():
            # Nothing waits for one that is gone; an alert would never clear.
            self._on_waiting(name, 0)

    async def renew_authorities(self) -> bool:
        """Read the authorities again; return whether they have changed.

        Before the first event none have been read.
        """
        if self._connections is None:
            return False
        return await self._connections.renew_authorities()

    async def close(self) -> None:
        """Close the connections."""
        if self._connections is not None:
            await self._connections.close()
            self._connections = None

    async def deliver_due(self) -> None:
        """Attempt to deliver every due event; endpoints do not wait for each other.

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
        """Delete events that are refused and old, or without an endpoint in the
        settings.

        Events that are dated from the future are dated from now.

        Raises:
            UnavailableError: when the database is away.
        """
        now = seconds(self._clock)
        before = now - _KEPT
        names = [endpoint.name for endpoint in self._endpoints]
        async with self._database.write() as db:
            # Written while the clock was ahead, they would wait until it reaches that
            # time (R53).
            await db.execute(
                update(SecurityEvent)
                .where(lies_ahead(SecurityEvent.event_at, now))
                .values(event_at=now)
            )
            latest = now + _LONGEST_DELAY
            await db.execute(
                update(SecurityEvent)
                .where(lies_ahead(SecurityEvent.next_attempt_at, latest))
                .values(next_attempt_at=now)
            )
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
            # A round that is under way may be for an endpoint that is gone.
            if endpoint.name in self._logs:
                self._on_waiting(endpoint.name, age)
            if oldest is None:
                return
            # Before claiming: without a key no event is postponed.
            key = await self._keys.signing_key()
            claimed = await self._claim(endpoint)
            attempts = await asyncio.gather(
                *(self._attempt(endpoint, event, key) for event in claimed)
            )
            if claimed:
                await self._settle(endpoint, list(zip(claimed, attempts, strict=True)))
            # After a failure the rest of the endpoint's queue is not tried.
            if len(claimed) < _BATCH or not any(a.is_taken for a in attempts):
                return

    async def _find_oldest(self, endpoint: EventEndpoint) -> int | None:
        # Read first: SQLite's one write lock is not taken every second without need.
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
    ) -> DeliveryAttempt:
        signed = sign_event(
            event, key, issuer_url=self._issuer_url, audience=endpoint.audience
        )
        try:
            connections = await self._connect()
            async with asyncio.timeout(TIMEOUT):
                return await push(connections, endpoint, signed)
        except AuthoritiesError as error:
            kind = FailureKind.UNKNOWN_AUTHORITY
            return failed(kind, f"ISSUER_CA_FILE: {error}")
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            kind, detail = explain(error)
            return failed(kind, f"{TEXTS[kind]}: {detail}" if detail else TEXTS[kind])

    async def _connect(self) -> Connections:
        """Create the connections at the first event: most issuers send none.

        Raises:
            AuthoritiesError: when the file cannot be used; the next attempt reads it
                again.
        """
        async with self._connecting:
            if self._connections is None:
                # The system's authorities take a quarter of a second to read.
                authorities = await asyncio.to_thread(
                    Authorities, "ISSUER_CA_FILE", self._ca_file
                )
                self._connections = Connections(authorities, max_connections=_BATCH * 2)
            return self._connections

    async def _settle(
        self,
        endpoint: EventEndpoint,
        attempted: Sequence[tuple[SecurityEvent, DeliveryAttempt]],
    ) -> None:
        """Store the outcomes in one transaction, then count them."""
        outcomes: list[tuple[str, DeliveryAttempt]] = []
        async with self._database.write() as db:
            taken = [event.id for event, attempt in attempted if attempt.is_taken]
            if taken:
                await db.execute(
                    delete(SecurityEvent).where(SecurityEvent.id.in_(taken))
                )
                outcomes += [("delivered", DeliveryAttempt(is_taken=True))] * len(taken)
            for event, attempt in attempted:
                if not attempt.is_taken:
                    outcome = await self._reschedule(db, event, attempt)
                    outcomes.append((outcome, attempt))
        for outcome, attempt in outcomes:
            self._count(endpoint.name, outcome)
            self._log(endpoint, outcome, attempt)

    def _log(
        self, endpoint: EventEndpoint, outcome: str, attempt: DeliveryAttempt
    ) -> None:
        """Log the end of an attempt: every refusal, and some of the repetitions."""
        failures = self._logs.get(endpoint.name)
        if failures is None:
            return  # it left the settings during the attempt
        if outcome == "delivered":
            failures.worked()
        elif outcome == "retried":
            failures.failed(
                (attempt.kind, attempt.told),
                kind=attempt.kind,
                setting=attempt.setting,
                told=attempt.told,
            )
        else:
            log.event(
                _LOG,
                logging.ERROR,
                f"security_event.{outcome}",
                endpoint=endpoint.name,
                url=shown_url(endpoint.url),
                kind=attempt.kind,
                setting=attempt.setting,
                told=attempt.told,
            )

    async def _reschedule(
        self, db: AsyncSession, event: SecurityEvent, attempt: DeliveryAttempt
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


def _make_log(endpoint: EventEndpoint) -> FailureLog:
    return FailureLog(
        _LOG,
        "security_event.retried",
        time.monotonic,
        endpoint=endpoint.name,
        url=shown_url(endpoint.url),
    )
