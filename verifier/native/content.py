"""What a gateway is sent: keys, revocations, and the window in which they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from shared.feed import FeedEntry
from shared.jose.verification_keys import VerificationKey
from verifier.check.trust import PRUNE_PARTS, Trust
from verifier.native.entries import LiveEntries
from verifier.native.in_force import InForce, Mark
from verifier.native.terms import NativeTerms
from verifier.native.window import CLOSED, Window, window_of

#: Seconds between two looks for what comes without a wake-up: new keys, a clock that
#: was set.
LOOK_EVERY: Final = 1.0


class KeepingTrust(Trust):
    """The trust of a verifier that writes into gateways: it keeps the keys of entries.

    Args:
        issuer: our own: the `iss` of the feed.

    Attributes:
        entries: every revocation in force.
    """

    def __init__(self, issuer: str) -> None:
        super().__init__(issuer)
        self.entries = LiveEntries()
        self._prunings = 0

    def enforce(self, entries: Iterable[FeedEntry]) -> None:
        """Put revocations in force, and keep them."""
        batch = list(entries)
        super().enforce(batch)
        self.entries.add(batch)

    def prune(self, now: int) -> None:
        """Drop expired revocations: of the index a slice, of the kept ones all, when
        all slices have had their turn.
        """
        super().prune(now)
        self._prunings = (self._prunings + 1) % PRUNE_PARTS
        if not self._prunings:
            self.entries.prune(now)


class Content(NamedTuple):
    """What a gateway is to have.

    Attributes:
        mark: the position up to which the entries are there.
        window: the time in which requests may pass; closed while there is no key.
        keys: of our own issuer, without revoked ones, in order of their ids.
        entries: every revocation; read it before anything else runs.
        revision: of the entries.
        terms: what each native policy asks, by its name.
    """

    mark: Mark
    window: Window
    keys: tuple[VerificationKey, ...]
    entries: LiveEntries
    revision: int
    terms: Mapping[str, NativeTerms]

    @property
    def essence(self) -> tuple[object, ...]:
        """What makes two contents different for a gateway.

        The entries are left out: when more of them are whole, the mark moves. Half a
        snapshot is not worth a large filter. Of the window its end counts, which moves
        with each answer of the feed, and when our clock is set.
        """
        return self.mark, self.window.closes_at, self.keys, self.terms

    @property
    def is_whole(self) -> bool:
        """Whether all entries up to some position of the feed are there."""
        return bool(self.mark.epoch)


class ContentSource:
    """Makes the content from what is trusted now.

    Args:
        trust: of this process.
        in_force: knows how far the feed was read.
        terms: gives what each native policy asks.
        boottime: gives boot-time seconds.
        now: gives Unix seconds.
    """

    def __init__(
        self,
        trust: KeepingTrust,
        in_force: InForce,
        terms: Callable[[], Mapping[str, NativeTerms]],
        boottime: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._trust = trust
        self._in_force = in_force
        self._terms = terms
        self._boottime = boottime
        self._now = now

    def take(self) -> Content:
        """Return what a gateway is to have now."""
        own = self._trust.snapshot.own
        entries = self._trust.entries
        revoked = entries.revoked_kids()
        keys = [key for kid, key in sorted(own.keys.keys.items()) if kid not in revoked]
        # The wall clock first: a pause between the two readings closes the window
        # early. The other way round it would close after the lease that it rests on.
        now = self._now()
        window = window_of(own, self._boottime(), now) if keys else CLOSED
        return Content(
            self._in_force.mark,
            window,
            tuple(keys),
            entries,
            entries.revision,
            self._terms(),
        )

    async def take_whole(self) -> Content:
        """Return what a gateway is to have, once all entries are there.

        Until then it keeps what it has: without the entries it may let nothing pass,
        and a filter for each piece of a long list costs a minute.
        """
        while not (content := self.take()).is_whole:
            await self._in_force.wait_for_news(LOOK_EVERY)
        return content

    async def wait_for_other(self, content: Content) -> None:
        """Return when there is another content than this one."""
        while self.take().essence == content.essence:
            await self._in_force.wait_for_news(LOOK_EVERY)
