"""R28, R50: every way of getting a token, against every way of revoking it.

Each pair is checked at the product's own gate: open before, closed as soon as the
answer says `confirmed`, and closed as long as any clock that may be wrong by the
allowance takes the token for alive, though the feed was pruned meanwhile. A gate that
starts then has only the entries that the feed still holds.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from shared.claims import CLOCK_ALLOWANCE, DEFAULT_LEEWAY
from tests.support.issuer_gate import IssuerGate
from tests.support.issuer_harness import (
    FEED_TOKEN,
    FakeClock,
    key_environment,
    make_settings,
    running_issuer,
)
from tests.support.issuer_story import PASSWORD, log_in
from tests.support.oauth_clients import create_client, log_in_admin
from tests.support.proofs import is_whole
from tests.support.ways_in import BY_CODE, WAYS_IN, Got, get, make_holder, renew
from tests.support.ways_out import WAYS_OUT, Scene, WayOut

#: A day on which no key of the template is due; commands read the machine's clock.
_LIFETIME = 3_600


class Stage(NamedTuple):
    """An issuer, a gate that follows it, and a bystander who must not be affected."""

    scene: Scene
    gate: IssuerGate
    names: Iterator[int]

    @property
    def clock(self) -> FakeClock:
        return self.scene.issuer.clock

    async def renew(self) -> Stage:
        """Log the administrator in again: the tokens of before may be old."""
        admin = await log_in(self.scene.issuer, "root")
        return self._replace(scene=replace(self.scene, admin=admin))

    async def get(self, names: Iterable[str]) -> list[Got]:
        """Get a token in each of these ways, all in the same second."""
        names = sorted(names)
        issuer = self.scene.issuer
        holders = [
            await make_holder(
                issuer, f"u{next(self.names)}", with_device=name in BY_CODE
            )
            for name in names
        ]
        # Until each device has a code that was not used.
        self.clock.advance(30)
        return [
            await get(issuer, name, holder)
            for name, holder in zip(names, holders, strict=True)
        ]

    async def revoke(self, way: WayOut, got: Got) -> str:
        """Revoke in this way; return why it is not confirmed, "" when it is."""
        answer = await self.gate.follow_during(way.act(self.scene, got))
        if answer is None:
            await self.gate.sync()
        elif not answer.is_success or _find_confirmed(answer) is not True:
            return f"{way.name}: {got.way}: {answer.status_code} {answer.text}"
        return ""


def _find_confirmed(answer: httpx.Response) -> object:
    body: dict[str, Any] = answer.json()
    return (body if "confirmed" in body else body["revocation"])["confirmed"]


@pytest.fixture
async def stage(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    """An issuer at the time of the machine's clock, by which commands go."""
    settings = make_settings(
        database_url, access_ttl=_LIFETIME, password_grant=True, refresh_grace=5
    )
    environment = {
        "ISSUER_URL": settings.url,
        "ISSUER_AUDIENCE": settings.audience,
        "ISSUER_DATABASE_URL": database_url,
        "ISSUER_FEED_TOKEN": FEED_TOKEN,
        **key_environment(),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    clock = FakeClock(int(time.time()) * 1_000)
    async with running_issuer(settings, clock) as issuer:
        admin = await log_in_admin(issuer)
        revoker = await create_client(issuer, ["gatehouse:revoke"])
        await issuer.create_user("bystander", PASSWORD)
        gate = IssuerGate(issuer)
        await gate.sync()
        yield Stage(Scene(issuer, admin, revoker, tmp_path), gate, count())


def _share(database_url: str, parts: int, shift: int) -> list[WayOut]:
    """Return the ways that this database tries: all, or every so manieth."""
    first = shift + database_url.startswith("postgres")
    return [
        way
        for number, way in enumerate(WAYS_OUT)
        if is_whole() or (number + first) % parts == 0
    ]


async def _try_all(
    stage: Stage, ways: Iterable[WayOut], *, left: int = _LIFETIME
) -> tuple[int, list[str]]:
    """Try each way on a token of each way in; return the number of pairs, and passes.

    Args:
        stage: where.
        ways: those to try.
        left: seconds before the tokens expire at which they are revoked.
    """
    pairs, passed = 0, []
    for way in ways:
        if way.is_command:
            # It goes by the machine's clock.
            stage.clock.now_ms = int(time.time()) * 1_000
        tokens = await stage.get(way.dead)
        stage.clock.advance(_LIFETIME - left)
        stage = await stage.renew()
        bystander = (await log_in(stage.scene.issuer, "bystander")).access_token
        passed += await _try(stage, way, tokens, bystander)
        passed += await _wait_until_all_clocks_agree(stage, way, tokens, bystander)
        pairs += len(tokens)
    return pairs, passed


async def _try(
    stage: Stage, way: WayOut, tokens: Sequence[Got], bystander: str
) -> list[str]:
    """Revoke each token in this way; return tokens that passed after it or never."""
    gate, wrong = stage.gate, []
    await gate.sync()
    for number, got in enumerate(tokens):
        if not way.is_wide and gate.check(got.tokens.access_token) != 200:
            wrong.append(f"{way.name}: {got.way}: refused before")
        if not way.is_wide or number == 0:
            wrong.append(await stage.revoke(way, got))
        if gate.check(got.tokens.access_token) == 200:
            wrong.append(f"{way.name}: {got.way}: passes")
        if got.way in way.shut and await _is_given(stage, got):
            wrong.append(f"{way.name}: {got.way}: gives another token")
    if not way.is_wide and gate.check(bystander) != 200:
        wrong.append(f"{way.name}: a bystander is refused")
    return [text for text in wrong if text]


async def _is_given(stage: Stage, got: Got) -> bool:
    answer = await WAYS_IN[got.way](stage.scene.issuer, got)
    return answer.status_code == 200


async def _wait_until_all_clocks_agree(
    stage: Stage, way: WayOut, tokens: Sequence[Got], bystander: str
) -> list[str]:
    """Return tokens that pass at the last moment at which a slow clock accepts them.

    The issuer that pruned just then had a clock that is fast.
    """
    issuer, clock = stage.scene.issuer, stage.clock
    expires_at = max(got.claims["exp"] for got in tokens)
    off = CLOCK_ALLOWANCE - 1
    last = expires_at + DEFAULT_LEEWAY - 1 + off
    clock.now_ms = (last + off) * 1_000
    await issuer.issuer.feed.feed.prune()
    clock.now_ms = last * 1_000
    gate = IssuerGate(issuer, clock_error=-off, is_counted=False)
    await gate.sync()
    if not way.is_wide:
        assert gate.check(bystander) == 200, "nothing is alive here"
    return [
        f"{way.name}: {got.way}: passes once the feed was pruned"
        for got in tokens
        if gate.check(got.tokens.access_token) == 200
    ]


@pytest.mark.proof
async def test_a_token_is_dead_once_that_is_confirmed(
    stage: Stage, database_url: str
) -> None:
    pairs, passed = await _try_all(stage, _share(database_url, 12, 0))
    assert passed == []
    print(f"{pairs} pairs")


@pytest.mark.proof
async def test_a_token_about_to_expire_is_revoked_as_long_as_any_clock_takes_it(
    stage: Stage, database_url: str
) -> None:
    # A reuse takes longer than the tokens have left.
    ways = [
        way
        for way in _share(database_url, 24, 1)
        if not way.is_command and way.name != "reuse"
    ]
    pairs, passed = await _try_all(stage, ways, left=1)
    assert passed == []
    print(f"{pairs} pairs")


@pytest.mark.proof
async def test_tokens_obtained_at_the_same_time_are_dead_too(
    stage: Stage, database_url: str
) -> None:
    """In both orders: none, or one that the revocation covers."""
    draw = random.Random(0)
    pairs, passed = 0, []
    for way in _share(database_url, 24, 3):
        if way.is_command:
            stage.clock.now_ms = int(time.time()) * 1_000
        tokens = await stage.get(way.shut)
        stage = await stage.renew()
        await stage.gate.sync()
        for got in tokens:
            pairs += 1
            if way.is_wide:
                # The one before has ended the administrator's session, too.
                stage = await stage.renew()
            late, problem = await _get_meanwhile(stage, way, got, draw)
            passed += [problem] if problem else []
            passed += [
                f"{way.name}: {got.way}"
                for token in (got, *late)
                if stage.gate.check(token.tokens.access_token) == 200
            ]
    assert passed == []
    print(f"{pairs} pairs")


async def _get_meanwhile(
    stage: Stage, way: WayOut, got: Got, draw: random.Random
) -> tuple[list[Got], str]:
    """Revoke, and get a token with the same credential concurrently; return it."""

    async def get_late(turns: int) -> httpx.Response:
        for _ in range(turns):
            await asyncio.sleep(0)
        return await WAYS_IN[got.way](stage.scene.issuer, got)

    asked = asyncio.gather(*(get_late(draw.randrange(200)) for _ in range(3)))
    problem = await stage.revoke(way, got)
    answers = await asked
    await stage.gate.sync()
    came = [renew(got, answer) for answer in answers if answer.status_code == 200]
    return came, problem
