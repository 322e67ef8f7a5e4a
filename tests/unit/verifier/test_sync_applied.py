"""A follower that writes into gateways acknowledges what is in force in them."""

from __future__ import annotations

import pytest

from shared.feed import FOLLOWER_APPLIED_HEADER, EntryKind, FeedError
from tests.support.gatehouse_verifier import SimulatedVerifier, unstarted
from tests.support.issuer_simulator import Recorder
from verifier.sync.feed import APPLIED_WAIT, FeedFollower


class SlowGateways:
    """Gateways in which entries come into force when the test says so.

    Attributes:
        in_force: epoch and position of what is.
        reached_last: epoch and position of what may be written into them.
        waits: the seconds of each wait.
    """

    def __init__(self) -> None:
        self.in_force = ("", 0)
        self.reached_last = ("", 0)
        self.waits: list[float] = []

    def reached(self, epoch: str, position: int) -> None:
        self.reached_last = epoch, position

    def position(self, epoch: str) -> int:
        return self.in_force[1] if epoch == self.in_force[0] else 0

    async def wait(self, epoch: str, position: int, seconds: float) -> None:
        assert (epoch, position) == self.reached_last
        self.waits.append(seconds)


class Site:
    """A verifier whose follower writes into slow gateways."""

    def __init__(self) -> None:
        self.verifier: SimulatedVerifier = unstarted()
        self.issuer = self.verifier.issuer
        self.gateways = SlowGateways()
        self.recorder = Recorder(self.issuer)
        self.feed = FeedFollower(
            self.verifier.feed.source,
            self.recorder.fetch,
            self.verifier.trust,
            applied=self.gateways,
        )
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def step(self) -> None:
        await self.feed.step()
        await self.feed.pause(self.sleep)


async def test_what_is_not_in_force_in_the_gateways_is_not_acknowledged() -> None:
    site = Site()
    site.issuer.revoke(EntryKind.SID, "old")
    await site.step()
    assert site.gateways.reached_last == (site.issuer.epoch, 1)
    await site.step()
    site.gateways.in_force = (site.issuer.epoch, 1)
    site.issuer.revoke(EntryKind.SID, "new")
    await site.step()
    assert site.gateways.reached_last == (site.issuer.epoch, 2)
    await site.step()
    site.gateways.in_force = (site.issuer.epoch, 2)
    await site.step()
    assert site.issuer.applied == [0, 1, 1, 2]
    assert site.feed.position == 2


async def test_gateways_that_are_ahead_acknowledge_no_more_than_was_read() -> None:
    site = Site()
    await site.step()
    site.gateways.in_force = (site.issuer.epoch, 9)
    await site.step()
    assert site.issuer.applied == [0]


async def test_no_request_is_held_while_gateways_are_behind() -> None:
    """The next one has to say that they are not; the list stays fresh meanwhile."""
    site = Site()
    site.issuer.revoke(EntryKind.SID, "s")
    await site.step()
    await site.step()
    site.verifier.clock.advance(10)
    await site.step()
    assert [hold for hold, _ in site.recorder.limits[1:]] == [0, 0]
    assert site.gateways.waits == [APPLIED_WAIT] * 3
    assert not site.slept
    trusted = site.verifier.trust.snapshot.own
    assert trusted.fresh_until == site.verifier.clock.monotonic() + 30
    site.gateways.in_force = (site.issuer.epoch, 1)
    await site.step()
    assert site.recorder.limits[-1][0] == 5
    assert len(site.gateways.waits) == 3


async def test_position_of_another_epoch_is_not_in_force() -> None:
    site = Site()
    for n in range(5):
        site.issuer.revoke(EntryKind.SID, f"s-{n}")
    await site.step()
    site.gateways.in_force = (site.issuer.epoch, 5)
    site.issuer.restore_backup(3)
    await site.step()
    assert site.gateways.reached_last == (site.issuer.epoch, 3)
    await site.step()
    assert site.issuer.applied == [0]
    site.gateways.in_force = (site.issuer.epoch, 3)
    await site.step()
    assert site.issuer.applied == [0, 3]


async def test_position_from_the_disk_waits_for_the_gateways() -> None:
    site = Site()
    for n in range(2):
        site.issuer.revoke(EntryKind.SID, f"s-{n}")
    site.feed.resume(site.issuer.epoch, 2)
    assert site.gateways.reached_last == (site.issuer.epoch, 2)
    await site.step()
    assert site.issuer.applied == [0]


async def test_issuer_that_does_not_know_the_header_is_not_followed() -> None:
    """It would confirm what is read, and not what is in force."""
    site = Site()
    site.issuer.knows_applied = False
    await site.step()
    with pytest.raises(FeedError, match="upgrade it first"):
        await site.feed.step()
    assert site.verifier.trust.snapshot.own.fresh_until == 0


async def test_verifier_without_gateways_says_nothing_of_them() -> None:
    verifier = unstarted()
    recorder = Recorder(verifier.issuer)
    verifier.feed._fetch = recorder.fetch
    await verifier.feed.step()
    await verifier.feed.step()
    assert all(FOLLOWER_APPLIED_HEADER not in sent for sent in recorder.headers)
