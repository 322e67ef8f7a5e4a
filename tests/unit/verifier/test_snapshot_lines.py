"""A snapshot in lines: in force line by line, reached with the last (decision 0004)."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from shared.feed import EntryKind, FeedError, encode_page, parse_page
from tests.support.gatehouse_verifier import SimulatedVerifier, unstarted
from verifier.sync.fetch import FetchError


def revoked(verifier: SimulatedVerifier, sids: range) -> list[bool]:
    table = verifier.trust.snapshot.own.revocations.sids
    return [table.minimum_generation(f"s-{n}") is not None for n in sids]


@pytest.fixture
def verifier() -> SimulatedVerifier:
    """A verifier that has asked for nothing, and an issuer with 25 entries in lines of
    10.
    """
    verifier = unstarted()
    for number in range(25):
        verifier.issuer.revoke(EntryKind.SID, f"s-{number}")
    verifier.issuer.knows_lines = True
    verifier.issuer.page_limit = 10
    return verifier


async def test_every_line_is_in_force_and_the_last_one_reaches_the_head(
    verifier: SimulatedVerifier,
) -> None:
    await verifier.feed.step()
    assert all(revoked(verifier, range(25)))
    assert verifier.feed.position == verifier.feed.head == 25
    assert verifier.feed.epoch == verifier.issuer.epoch
    fresh_until = verifier.clock.monotonic() + 30
    assert verifier.trust.snapshot.own.fresh_until == fresh_until


async def test_an_empty_feed_is_one_line() -> None:
    verifier = unstarted()
    verifier.issuer.knows_lines = True
    await verifier.feed.step()
    assert verifier.feed.position == 0
    assert verifier.trust.snapshot.own.fresh_until == verifier.clock.monotonic() + 30


@pytest.mark.parametrize("kept", [0, 1, 2])
async def test_a_snapshot_that_breaks_off_leaves_its_entries_and_no_position(
    verifier: SimulatedVerifier, kept: int
) -> None:
    verifier.issuer.lie_lines = lambda lines: lines[:kept]
    with pytest.raises(FeedError, match="not whole"):
        await verifier.feed.step()
    assert revoked(verifier, range(25)) == [n < 10 * kept for n in range(25)]
    assert verifier.feed.epoch is None
    assert verifier.trust.snapshot.own.fresh_until == 0


@pytest.mark.parametrize(
    "change", ["skipped", "swapped", "another epoch", "another head"]
)
async def test_a_line_that_does_not_follow_is_refused(
    verifier: SimulatedVerifier, change: str
) -> None:
    first, second, third = verifier.issuer.snapshot_lines()
    page = parse_page(second)
    other = {
        "another epoch": replace(page, epoch="another"),
        "another head": replace(page, head=26),
    }
    lines = {
        "skipped": [first, third],
        "swapped": [second, first, third],
    }.get(
        change
    ) or [first, encode_page(other[change]), third]
    verifier.issuer.lie_lines = lambda _: lines
    with pytest.raises(FeedError, match="does not follow"):
        await verifier.feed.step()
    assert verifier.feed.epoch is None
    assert verifier.trust.snapshot.own.fresh_until == 0


async def test_another_issuers_line_is_refused(verifier: SimulatedVerifier) -> None:
    lines = [
        re.sub(rb'"iss":"[^"]*"', b'"iss":"https://other.example"', line)
        for line in verifier.issuer.snapshot_lines()
    ]
    verifier.issuer.lie_lines = lambda _: lines
    with pytest.raises(FeedError, match="iss"):
        await verifier.feed.step()
    assert not any(revoked(verifier, range(25)))


async def test_one_whole_page_is_taken_as_well(verifier: SimulatedVerifier) -> None:
    verifier.issuer.knows_lines = False
    await verifier.feed.step()
    assert all(revoked(verifier, range(25)))
    assert verifier.feed.position == 25


async def test_a_refused_snapshot_is_no_line(verifier: SimulatedVerifier) -> None:
    verifier.issuer.lie = lambda answer: answer._replace(status=503, body=b"")
    verifier.issuer.knows_lines = False
    with pytest.raises(FetchError, match="503"):
        await verifier.feed.step()
