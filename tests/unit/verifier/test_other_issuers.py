"""The keys of other issuers are followed, and the trouble of one is its own (R67)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.clock import FakeClock
from tests.support.jose_keys import JoseKey, jose_key
from tests.support.other_issuer import Internet, OtherIssuer, known, next_key
from tests.support.tokens import AUDIENCE, ISSUER
from verifier.check.policy import TokenPolicy
from verifier.check.trust import Trust
from verifier.disk.copy_file import Identity
from verifier.disk.keys_file import _seal
from verifier.sync.other_issuers import (
    REDISCOVER_AFTER,
    OtherIssuers,
    OtherIssuersMeans,
)
from verifier.sync.sync_tasks import TaskTiming

MAX_AGE = 600


class Followed:
    """Two issuers, and what a worker makes of them."""

    def __init__(self, directory: Path | None = None) -> None:
        self.clock = FakeClock()
        self.a, self.b = OtherIssuer("a"), OtherIssuer("b", "Ed25519")
        self.directory = directory
        self.restart()

    def restart(self) -> None:
        """Begin again, as another process of the same boot."""
        self.trust = Trust(ISSUER)
        identity = Identity(b"k" * 32, ISSUER, "f", "one boot")
        self.others = OtherIssuers(
            OtherIssuersMeans(
                trust=self.trust,
                fetch=Internet(self.clock, self.a, self.b).fetch,
                keys_max_age=MAX_AGE,
                boottime=self.clock.monotonic,
                now=self.clock.now,
                timing=TaskTiming(self._sleep, lambda: 1.0),
                directory=self.directory,
                identity=lambda: identity,
            )
        )
        self.follow()

    async def _sleep(self, _seconds: float) -> None:
        # A source that fails is asked again and again; the others have their turn.
        await asyncio.sleep(0)

    def follow(self, *entries: str) -> None:
        self.others.follow(known(*(entries or (self.a.entry(), self.b.entry()))))

    def kids(self, issuer: OtherIssuer) -> set[str]:
        return set(self.trust.snapshot.of(issuer.url).keys.keys)

    async def step(self, name: str) -> None:
        await self.others.refreshers[name].step()

    @asynccontextmanager
    async def running(self, turns: int = 50) -> AsyncIterator[None]:
        task = asyncio.create_task(self.others.run())
        try:
            for _ in range(turns):
                await asyncio.sleep(0)
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def followed() -> Followed:
    return Followed()


async def test_keys_are_found_by_the_configuration_and_last_their_time(
    followed: Followed,
) -> None:
    await followed.step("a")
    assert followed.a.asked == ["/.well-known/openid-configuration", "/keys"]
    assert followed.kids(followed.a) == {"key-ES256"}
    until = followed.clock.monotonic() + MAX_AGE
    assert followed.trust.snapshot.of(followed.a.url).keys_until == until
    assert followed.kids(followed.b) == set()
    assert not followed.others.have_keys(until - 1)
    await followed.step("b")
    assert followed.others.have_keys(until - 1)
    assert not followed.others.have_keys(until)


async def test_keys_without_a_max_age_are_asked_for_every_minute(
    followed: Followed,
) -> None:
    await followed.step("a")
    assert followed.others.refreshers["a"].period == 60.0


async def test_configured_address_asks_for_no_configuration(followed: Followed) -> None:
    followed.follow(followed.a.entry(f'jwks_url = "{followed.a.url}/keys"'))
    await followed.step("a")
    assert followed.a.asked == ["/keys"]
    assert followed.b.asked == []


async def test_place_is_asked_for_again_after_a_failure_and_after_an_hour(
    followed: Followed,
) -> None:
    await followed.step("a")
    await followed.step("a")
    assert followed.a.asked.count("/.well-known/openid-configuration") == 1
    followed.clock.advance(REDISCOVER_AFTER)
    await followed.step("a")
    assert followed.a.asked.count("/.well-known/openid-configuration") == 2
    followed.a.jwks_path = "/moved"
    async with followed.running():
        followed.others.request(_policy(followed, "a"))
        for _ in range(50):
            await asyncio.sleep(0)
    assert "/moved" in followed.a.asked
    assert followed.others.refreshers["a"].status.failures == 0


def _policy(followed: Followed, *names: str) -> TokenPolicy:
    issuers = known(followed.a.entry(), followed.b.entry())
    terms = tuple(one.terms for one in issuers if one.terms.name in names)
    return TokenPolicy(terms)


async def test_one_issuer_that_is_away_costs_the_other_nothing(
    followed: Followed,
) -> None:
    followed.a.is_down = True
    # Few turns: after five failures the breaker waits, by the real clock.
    async with followed.running(turns=5):
        assert followed.kids(followed.b) == {"key-Ed25519"}
        assert followed.kids(followed.a) == set()
        failures = followed.others.refreshers["a"].status.failures
        assert 2 <= failures < 5
        assert followed.others.refreshers["b"].status.failures == 0
        followed.a.is_down = False
        for _ in range(50):
            await asyncio.sleep(0)
        assert followed.kids(followed.a) == {"key-ES256"}


async def test_bad_set_leaves_the_keys_in_force(followed: Followed) -> None:
    await followed.step("a")
    # Keys of another algorithm than those that are listed.
    followed.a.keys = [jose_key("Ed25519")]
    async with followed.running():
        assert followed.kids(followed.a) == {"key-ES256"}
        error = followed.others.refreshers["a"].status.last_error
        assert "no key for ES256 can be used" in error


async def test_unknown_key_asks_the_accepted_issuers_alone(followed: Followed) -> None:
    async with followed.running():
        asked = len(followed.a.asked), len(followed.b.asked)
        policy = _policy(followed, "a")
        for _ in range(20):
            followed.others.request(policy)
            await asyncio.sleep(0)
        # Once for the request.
        assert len(followed.a.asked) == asked[0] + 1
        assert len(followed.b.asked) == asked[1]
        assert _policy(followed, "a") != TokenPolicy.own(ISSUER, AUDIENCE)


async def test_reload_ends_one_issuer_and_keeps_the_other(followed: Followed) -> None:
    async with followed.running():
        kept = followed.others.refreshers["b"]
        b = followed.trust.snapshot.of(followed.b.url)
        followed.follow(followed.b.entry("max_lifetime = 60"))
        for _ in range(50):
            await asyncio.sleep(0)
        assert followed.others.refreshers == {"b": kept}
        assert followed.trust.snapshot.of(followed.b.url) is b
        assert followed.a.url not in followed.trust.snapshot.issuers
        asked = len(followed.a.asked)
        followed.a.keys = [next_key("ES256")]
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(followed.a.asked) == asked
        followed.follow()
        for _ in range(50):
            await asyncio.sleep(0)
        assert followed.kids(followed.a) == {"next"}


async def test_keys_of_another_address_end_at_once(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    async with followed.running():
        assert followed.kids(followed.a) == {"key-ES256"}
        followed.a.is_down = True
        moved = followed.a.entry(f'jwks_url = "{followed.a.url}/moved"')
        followed.follow(moved, followed.b.entry())
        assert followed.kids(followed.a) == set()
        assert followed.kids(followed.b) == {"key-Ed25519"}
    followed.restart()
    followed.follow(moved, followed.b.entry())
    async with followed.running():
        assert followed.kids(followed.a) == set()


async def test_start_without_the_issuer_takes_the_keys_from_disk(
    tmp_path: Path,
) -> None:
    followed = Followed(tmp_path)
    async with followed.running():
        assert followed.kids(followed.a) == {"key-ES256"}
    followed.a.is_down = followed.b.is_down = True
    followed.clock.advance(MAX_AGE - 1)
    followed.restart()
    async with followed.running():
        assert followed.others.have_keys(followed.clock.monotonic())
        followed.clock.advance(1)
        assert not followed.others.have_keys(followed.clock.monotonic())


async def test_copy_of_a_faulty_program_keeps_none_from_asking(
    tmp_path: Path,
) -> None:
    followed = Followed(tmp_path)
    async with followed.running():
        pass
    for path in tmp_path.glob("*.keys"):
        # Sealed as ours, and not what we write.
        content = b'{"version": 1}'
        path.write_bytes(_seal(b"k" * 32, content) + content)
    followed.restart()
    async with followed.running():
        assert followed.kids(followed.a) == {"key-ES256"}


async def test_keys_on_disk_are_read_by_the_algorithms_of_today(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    async with followed.running():
        pass
    followed.a.is_down = True
    followed.restart()
    followed.a.algorithm = "ES384"
    followed.follow()
    async with followed.running():
        assert followed.kids(followed.a) == set()


async def test_checks_are_answered_while_a_large_set_is_read(
    followed: Followed,
) -> None:
    """100 keys of 4096 bits take 0.1 s to check."""
    key = followed.a.keys[0]
    followed.a.keys = [
        JoseKey(key.alg, {**key.jwk, "kid": f"{i}"}, key.sign) for i in range(100)
    ]
    reading = asyncio.create_task(followed.step("a"))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1
    await reading
    assert turns >= 100
    assert len(followed.kids(followed.a)) == 100
