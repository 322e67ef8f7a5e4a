"""The whole issuer in one process, on a real database, with a clock that a test
sets.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
from fastapi import FastAPI
from pydantic import SecretStr

from issuer.acts import Caller
from issuer.app import build_public_app
from issuer.composition import Issuer, compose
from issuer.http.operators_port.health import build_operators_app
from issuer.settings.issuer_settings import IssuerSettings, KeyRing
from issuer.storage.db import Database
from shared.jose import base64url
from tests.support import type_adapters
from tests.support.processes import PATIENCE

type_adapters.keep()
FEED_TOKEN = "feed-token-of-the-tests-0123456789abcdef"
#: 2026-11-22T13:20:33.123Z, in milliseconds.
START_MS = 1_795_353_633_123


class FakeClock:
    """A clock that stands until it is moved; calling it gives Unix milliseconds."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.now_ms = now_ms
        self._error_ms = 0

    def __call__(self) -> int:
        return self.now_ms

    @property
    def now(self) -> int:
        """Unix seconds."""
        return self.now_ms // 1_000

    def elapsed(self) -> float:
        """Seconds that pass with this clock, and not when it is set."""
        return (self.now_ms - self._error_ms) / 1_000

    def advance(self, seconds: float) -> None:
        """Move forward."""
        self.now_ms += round(seconds * 1_000)

    def set_by(self, seconds: float) -> None:
        """Set the time of day ahead or, below 0, back: no time passes."""
        self.now_ms += round(seconds * 1_000)
        self._error_ms += round(seconds * 1_000)


#: Below what the settings allow, set behind their back: a hash in 2 ms, not in 60. The
#: tests are about what is around it.
CHEAP_COST = 4


def make_settings(database_url: str, **changes: object) -> IssuerSettings:
    """Return settings that take no part from the environment, with `changes`."""
    values: dict[str, object] = {
        "url": "https://issuer.test",
        "audience": "api",
        "database_url": database_url,
        "feed_token": SecretStr(FEED_TOKEN),
        "key_encryption_keys": KeyRing(k1=b"\x01" * 32),
        "password_peppers": KeyRing(p1=b"\x02" * 32),
        "refresh_keys": KeyRing(r1=b"\x03" * 32),
        "hash_workers": 1,
        # The longest there is: on a busy machine a burst of requests may take longer
        # than a caller should wait. Tests of the 503 set their own.
        "database_pool_timeout": 30.0,
        "database_statement_timeout": PATIENCE,
        # Tests count positions.
        "canary_interval": 0,
    }
    made = IssuerSettings(_env_file=None, **(values | changes))
    return made.model_copy(
        update={"bcrypt_cost": changes.get("bcrypt_cost", CHEAP_COST)}
    )


def key_environment() -> dict[str, str]:
    """Return the keys of `make_settings` as a command's environment takes them.

    A database holds check values of its keys: a command with others is refused.
    """
    settings = make_settings("sqlite+aiosqlite:///unused.db")
    rings = ("key_encryption_keys", "password_peppers", "refresh_keys")
    return {
        f"ISSUER_{name.upper()}": ",".join(
            f"{key_id}:{base64url.encode(key)}"
            for key_id, key in getattr(settings, name).items()
        )
        for name in rings
    }


def create_app(settings: IssuerSettings) -> FastAPI:
    """Return the public application of an issuer that nothing else asks for."""
    return build_public_app(compose(settings))


@dataclass(frozen=True)
class IssuerHarness:
    """A running issuer.

    Attributes:
        issuer: its composed parts.
        client: speaks to the public application.
        operators: speaks to the operators' application.
        clock: its time.
    """

    issuer: Issuer
    client: httpx.AsyncClient
    operators: httpx.AsyncClient
    clock: FakeClock

    @property
    def settings(self) -> IssuerSettings:
        """The settings it was composed with."""
        return self.issuer.base.settings

    @property
    def database(self) -> Database:
        """Its database."""
        return self.issuer.base.database

    @property
    def feed_token(self) -> str:
        """The feed credential."""
        return FEED_TOKEN

    async def create_user(
        self, username: str, password: str, roles: Sequence[str] = ()
    ) -> object:
        """Create a user and return it."""
        return await self.issuer.accounts.users.create(
            username, password, roles, actor="system", caller=Caller()
        )


@asynccontextmanager
async def running_issuer(
    settings: IssuerSettings, clock: FakeClock | None = None
) -> AsyncIterator[IssuerHarness]:
    """Run an issuer for the length of the block: start-up, background tasks,
    shutdown.
    """
    async with (
        _serving(settings, clock) as (harness, app),
        app.router.lifespan_context(app),
    ):
        yield harness


@asynccontextmanager
async def resting_issuer(settings: IssuerSettings) -> AsyncIterator[IssuerHarness]:
    """Serve, and inform followers of news, but do nothing else by itself.

    What is repeated is a third of the time of a short test, and must not be half done
    when a test changes the clock.
    """
    async with _serving(settings) as (harness, _app):
        feed, stopping = harness.issuer.feed, asyncio.Event()
        endless = [task for task in feed.tasks if task.every is None]
        tasks = [asyncio.create_task(each.run(stopping)) for each in endless]
        await harness.issuer.keys.rotation.keep_schedule()
        try:
            yield harness
        finally:
            feed.stop()
            await asyncio.wait(tasks)
            await harness.issuer.close()


@asynccontextmanager
async def _serving(
    settings: IssuerSettings, clock: FakeClock | None = None
) -> AsyncIterator[tuple[IssuerHarness, FastAPI]]:
    clock = clock or FakeClock()
    issuer = compose(settings, clock=clock, elapsed=clock.elapsed)
    app = build_public_app(issuer)
    async with (
        _client(app, settings.url) as client,
        _client(
            build_operators_app(issuer.operators), "http://operators.test"
        ) as operators,
    ):
        yield IssuerHarness(issuer, client, operators, clock), app


def _client(app: object, base_url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app, client=("192.0.2.7", 50_000)),
        base_url=base_url,
        timeout=PATIENCE,
    )
