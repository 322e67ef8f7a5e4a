"""Composes what verifiers follow revocations by."""

from collections.abc import Sequence
from dataclasses import dataclass

from issuer.feed import routes
from issuer.feed.canary import Canary
from issuer.feed.confirmation import Confirmation
from issuer.feed.continuity import Continuity
from issuer.feed.feed import OnAppended, Revocation, RevocationFeed, WriteAlso
from issuer.feed.feed_credential import FeedCredential
from issuer.feed.lease_watch import LeaseWatch
from issuer.feed.leases import Leases
from issuer.feed.pages import FeedPages
from issuer.feed.wake_ups import WakeUps
from issuer.feed.watch import FeedWatch
from issuer.foundation import BackgroundTask, Foundation, Package


@dataclass(frozen=True, slots=True)
class FeedParts(Package):
    """The parts of the feed."""

    continuity: Continuity
    feed: RevocationFeed
    watch: FeedWatch
    leases: Leases
    lease_watch: LeaseWatch
    confirmation: Confirmation
    wake_ups: WakeUps
    canary: Canary
    credential: FeedCredential

    def release_waiters(self) -> None:
        """Answer every held request now: the process is about to stop."""
        self.watch.close()
        self.confirmation.close()

    def stop(self) -> None:
        """Answer what is held, and end the tasks that run until they are stopped."""
        self.release_waiters()
        self.leases.close()
        self.wake_ups.close()


def compose(
    base: Foundation, write_also: Sequence[WriteAlso], on_revoked: OnAppended
) -> FeedParts:
    """Return the parts.

    Args:
        base: what they are composed from.
        write_also: writes with every revocation, in its transaction.
        on_revoked: called with every revocation once it is committed.
    """
    settings, database, metrics = base.settings, base.database, base.metrics
    clock, elapsed = base.clock, base.elapsed
    max_staleness = settings.max_follower_staleness

    def on_appended(revocations: tuple[Revocation, ...], last: int) -> None:
        for revocation in revocations:
            metrics.revocation(revocation.kind.value)
        metrics.feed_head(last)
        watch.wake(last)
        on_revoked(revocations, last)

    def on_new_epoch() -> None:
        metrics.epoch()
        watch.wake(None)
        look_again()

    continuity = Continuity(database, on_new_epoch)
    feed = RevocationFeed(
        database,
        continuity,
        clock=clock,
        prune_time=base.prune_time,
        issuer_url=settings.url,
        max_ttl=settings.access_ttl,
        on_appended=on_appended,
        also=write_also,
    )
    watch = FeedWatch(feed.head, metrics.feed_waiting)
    confirmation = Confirmation(database, continuity, metrics.confirmation)
    look_again = confirmation.look_again
    leases = Leases(
        database, continuity, clock=clock, elapsed=elapsed, on_recorded=look_again
    )
    lease_watch = LeaseWatch(
        database,
        continuity,
        max_staleness=max_staleness,
        clock=clock,
        elapsed=elapsed,
        on_ended=look_again,
        on_look=metrics.followers,
    )
    wake_ups = WakeUps(database, settings.listen_url or None, watch.wake, look_again)
    canary = Canary(database, feed, clock=clock, on_sent=metrics.canary)
    credential = FeedCredential(settings.feed_token.get_secret_value(), elapsed)
    following = routes.Following(
        feed, FeedPages(feed), watch, leases, credential, max_staleness
    )
    tasks = [
        BackgroundTask(watch.poll),
        BackgroundTask(leases.write),
        BackgroundTask(wake_ups.listen),
        BackgroundTask(lease_watch.look, every=1),
        BackgroundTask(feed.prune, every=60),
    ]
    if interval := settings.canary_interval:
        tasks.append(BackgroundTask(canary.send, interval, delay=interval))
    return FeedParts(
        continuity,
        feed,
        watch,
        leases,
        lease_watch,
        confirmation,
        wake_ups,
        canary,
        credential,
        hot_routers=(routes.router,),
        provides=(following, confirmation),
        tasks=tasks,
    )
