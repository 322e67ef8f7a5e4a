"""What a gateway is to have: keys, entries, and the window in which requests pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from shared.feed import EntryKind, FeedEntry
from tests.support.clock import FakeClock
from tests.support.tokens import AUDIENCE, ISSUER, TestKey, signing_key
from verifier.check.policy import Policy, TokenPolicy
from verifier.check.revocations import PRUNE_MARGIN
from verifier.check.trust import PRUNE_PARTS, key_set
from verifier.native import content as content_module
from verifier.native.content import ContentSource, KeepingTrust
from verifier.native.in_force import InForce, Mark
from verifier.native.terms import native_terms
from verifier.native.window import CLOSED, RESERVE

STALENESS = 30


class Site:
    """A source on a clock that the test moves."""

    def __init__(self, *keys: TestKey) -> None:
        self.clock = FakeClock()
        self.trust = KeepingTrust(ISSUER)
        self.in_force = InForce(self.clock.monotonic, 0)
        terms = native_terms(Policy("default", TokenPolicy.own(ISSUER, AUDIENCE)))
        self.terms = {"default": terms}
        self.source = ContentSource(
            self.trust,
            self.in_force,
            lambda: self.terms,
            self.clock.monotonic,
            self.clock.now,
        )
        self.trust_keys(*keys)
        self.trust.renew(self.clock.monotonic() + STALENESS)
        self.in_force.reached("e", 1)

    def trust_keys(self, *keys: TestKey) -> None:
        trusted = key_set([key.jwk for key in keys])
        self.trust.trust_keys(ISSUER, trusted, self.clock.monotonic() + 600)

    def revoke(self, kind: EntryKind, key: str, prune_in: int = 600) -> None:
        until = self.clock.now() + prune_in
        self.trust.enforce([FeedEntry(2, kind, key, 0, until)])


def test_content_has_what_is_trusted() -> None:
    first, second = signing_key(), signing_key("second")
    site = Site(first, second)
    site.revoke(EntryKind.SID, "s")
    content = site.source.take()
    assert content.mark == Mark("e", 1)
    assert [key.kid for key in content.keys] == sorted({first.kid, second.kid})
    assert [entry.key for entry in content.entries] == ["s"]
    assert content.window.is_open
    left = content.window.closes_at - site.clock.now()
    assert left == STALENESS - RESERVE
    assert content.terms == site.terms


def test_without_keys_nothing_passes() -> None:
    """A gateway refuses an empty key set, and would go on with the keys it has."""
    assert Site().source.take().window == CLOSED


def test_revoked_keys_are_left_out() -> None:
    first, second = signing_key(), signing_key("second")
    site = Site(first, second)
    site.revoke(EntryKind.KID, second.kid)
    content = site.source.take()
    assert [key.kid for key in content.keys] == [first.kid]
    assert content.window.is_open
    site.revoke(EntryKind.KID, first.kid)
    content = site.source.take()
    assert (content.keys, content.window) == ((), CLOSED)


def test_stale_lists_and_stale_keys_close() -> None:
    site = Site(signing_key())
    site.clock.advance(STALENESS)
    assert site.source.take().window == CLOSED
    site.trust.renew(site.clock.monotonic() + STALENESS)
    assert site.source.take().window.is_open
    site.clock.advance(600 - STALENESS)
    site.trust.renew(site.clock.monotonic() + STALENESS)
    assert site.source.take().window == CLOSED


def test_ended_trust_closes() -> None:
    site = Site(signing_key())
    site.trust.end()
    content = site.source.take()
    assert (content.keys, content.window) == ((), CLOSED)


def test_pause_between_the_two_clocks_closes_no_later() -> None:
    """It could outlast the lease of the follower, and so a confirmation."""
    site = Site(signing_key())
    shift = site.clock.now() - site.clock.monotonic()
    pause = 10

    def paused(clock: Callable[[], float]) -> Callable[[], float]:
        def read() -> float:
            time = clock()
            site.clock.advance(pause)
            return time

        return read

    clocks = paused(site.clock.monotonic), paused(site.clock.now)
    terms = site.terms
    source = ContentSource(site.trust, site.in_force, lambda: terms, *clocks)
    window = source.take().window
    assert window.is_open
    assert window.closes_at - shift <= window.ends_at - RESERVE


def test_same_content_has_the_same_essence() -> None:
    site = Site(signing_key())
    assert site.source.take().essence == site.source.take().essence


def change_mark(site: Site) -> None:
    site.in_force.reached("e", 2)


def change_epoch(site: Site) -> None:
    site.in_force.reached("f", 1)


def change_keys(site: Site) -> None:
    site.trust_keys(signing_key("second"))


def change_clock(site: Site) -> None:
    site.clock.set_by(-3_600)


def change_terms(site: Site) -> None:
    site.terms = {"default": site.terms["default"]._replace(required_scopes=("a",))}


def renew(site: Site) -> None:
    site.trust.renew(site.clock.monotonic() + 2 * STALENESS)


@pytest.mark.parametrize(
    "change",
    [
        *(change_mark, change_epoch, change_keys),
        *(change_clock, change_terms, renew),
    ],
    ids=lambda change: change.__name__,
)
async def test_every_change_is_another_content(
    change: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that come without a wake-up are found, at the next look."""
    monkeypatch.setattr(content_module, "LOOK_EVERY", 0.001)
    site = Site(signing_key())
    content = site.source.take()
    waiting = asyncio.create_task(site.source.wait_for_other(content))
    await asyncio.sleep(0.005)
    assert not waiting.done()
    assert callable(change)
    change(site)
    async with asyncio.timeout(20):
        await waiting


def test_half_of_a_list_and_a_second_more_are_no_other_content() -> None:
    """The entries count when the mark moves; the window ends when it did."""
    site = Site(signing_key())
    content = site.source.take()
    site.revoke(EntryKind.SID, "new")
    site.clock.advance(1)
    assert site.source.take().essence == content.essence
    assert site.source.take().revision > content.revision


async def test_news_wake_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_module, "LOOK_EVERY", 3_600.0)
    site = Site(signing_key())
    waiting = asyncio.create_task(site.source.wait_for_other(site.source.take()))
    await asyncio.sleep(0)
    change_mark(site)
    async with asyncio.timeout(20):
        await waiting


def test_kept_entries_are_pruned_with_the_index() -> None:
    site = Site(signing_key())
    site.revoke(EntryKind.SID, "short", prune_in=10)
    site.revoke(EntryKind.SID, "long", prune_in=10_000)
    later = site.clock.now() + 11 + PRUNE_MARGIN
    for _ in range(PRUNE_PARTS - 1):
        site.trust.prune(later)
    assert len(site.trust.entries) == 2
    site.trust.prune(later)
    assert [entry.key for entry in site.trust.entries] == ["long"]
