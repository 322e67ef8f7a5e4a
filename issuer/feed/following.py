"""Everything by which verifiers follow revocations, put together."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass

from issuer.clock import Clock, ElapsedClock
from issuer.feed.confirmation import Confirmation
from issuer.feed.continuity import Continuity
from issuer.feed.feed import OnAppended, Revocation, RevocationFeed, WriteAlso
from issuer.feed.lease_watch import LeaseWatch
from issuer.feed.leases import Leases
from issuer.feed.wake_ups import WakeUps
from issuer.feed.watch import FeedWatch
from issuer.metrics import IssuerMetrics
from issuer.settings.issuer_settings import IssuerSettings
from issuer.storage.db import Database


@dataclass(frozen=True, slots=True)
class Following:
    """The parts; each tells in its own file what it is for."""

    continuity: Continuity
    feed: RevocationFeed
    watch: FeedWatch
    leases: Leases
    lease_watch: LeaseWatch
    confirmation: Confirmation
    wake_ups: WakeUps

    def tasks(self) -> Iterator[Coroutine[None, None, None]]:
        """Yield what must run for as long as the process serves."""
        yield self.watch.poll()
        yield self.leases.write()
        yield self.wake_ups.listen()

    def release_waiters(self) -> None:
        """Answer every held request now: the process is about to stop."""
        self.watch.close()
        self.confirmation.close()

    def close(self) -> None:
        """Let what `tasks` yielded end."""
        self.release_waiters()
        self.leases.close()
        self.wake_ups.close()


def compose_following(
    settings: IssuerSettings,
    database: Database,
    metrics: IssuerMetrics,
    *,
    clock: Clock,
    elapsed: ElapsedClock,
    prune_time: Callable[[], int],
    also: Sequence[WriteAlso],
    tell: Sequence[OnAppended] = (),
) -> Following:
    """Return the parts, told of each other.

    Args:
        settings: as read at the start.
        database: where all of it is kept.
        metrics: count it.
        clock: gives the time in milliseconds.
        elapsed: gives the seconds that leases are measured by.
        prune_time: gives the Unix seconds to prune by.
        also: what is written with every revocation.
        tell: told of every append once it is committed.
    """

    def on_appended(revocations: tuple[Revocation, ...], last: int) -> None:
        for revocation in revocations:
            metrics.revocation(revocation.kind.value)
        metrics.feed_head(last)
        watch.wake(last)
        for tell_also in tell:
            tell_also(revocations, last)

    def on_new_epoch() -> None:
        metrics.epoch()
        watch.wake(None)
        confirmation.look_again()

    continuity = Continuity(database, on_new_epoch)
    feed = RevocationFeed(
        database,
        continuity,
        clock=clock,
        prune_time=prune_time,
        issuer_url=settings.url,
        max_ttl=settings.access_ttl,
        on_appended=on_appended,
        also=also,
    )
    watch = FeedWatch(feed.head, metrics.feed_waiting)
    confirmation = Confirmation(database, continuity, metrics.confirmation)
    return Following(
        continuity=continuity,
        feed=feed,
        watch=watch,
        leases=Leases(
            database,
            continuity,
            clock=clock,
            elapsed=elapsed,
            on_recorded=confirmation.look_again,
        ),
        lease_watch=LeaseWatch(
            database,
            continuity,
            max_staleness=settings.max_follower_staleness,
            clock=clock,
            elapsed=elapsed,
            on_ended=confirmation.look_again,
            on_look=metrics.followers,
        ),
        confirmation=confirmation,
        wake_ups=WakeUps(
            database,
            settings.listen_url or None,
            watch.wake,
            confirmation.look_again,
        ),
    )
