"""Composes what verifiers follow revocations by."""

from collections.abc import Sequence

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


class FeedParts(Package):
    """The parts of the feed.

    Args:
        base: what they are composed from.
        write_also: writes with every revocation, in its transaction.
        on_revoked: called with every revocation once it is committed.
    """

    hot_routers = (routes.router,)

    def __init__(
        self, base: Foundation, write_also: Sequence[WriteAlso], on_revoked: OnAppended
    ) -> None:
        settings, database, metrics = base.settings, base.database, base.metrics
        self._on_revoked = on_revoked
        self.continuity = continuity = Continuity(base, self._begin_epoch)
        self.feed = RevocationFeed(
            base, continuity, on_appended=self._tell_appended, also=write_also
        )
        self.watch = FeedWatch(self.feed.head, metrics.feed_waiting)
        self.confirmation = Confirmation(database, continuity, metrics.confirmation)
        look_again = self.confirmation.look_again
        self.leases = Leases(base, continuity, on_recorded=look_again)
        self.lease_watch = LeaseWatch(base, continuity, on_ended=look_again)
        self.wake_ups = WakeUps(
            database, settings.listen_url or None, self.watch.wake, look_again
        )
        self.canary = Canary(base, self.feed)
        self.credential = FeedCredential(
            settings.feed_token.get_secret_value(), base.elapsed
        )
        following = routes.Following(
            self.feed,
            FeedPages(self.feed),
            self.watch,
            self.leases,
            self.credential,
            settings.max_follower_staleness,
        )
        self.provides = (following, self.confirmation)
        self.tasks = [
            BackgroundTask(self.watch.poll),
            BackgroundTask(self.leases.write),
            BackgroundTask(self.wake_ups.listen),
            BackgroundTask(self.lease_watch.look, every=1),
            BackgroundTask(self.feed.prune, every=60),
        ]
        if interval := settings.canary_interval:
            canary = BackgroundTask(self.canary.send, interval, delay=interval)
            self.tasks = [*self.tasks, canary]

    def release_waiters(self) -> None:
        """Answer every held request now: the process is about to stop."""
        self.watch.close()
        self.confirmation.close()

    def stop(self) -> None:
        """Answer what is held, and end the tasks that run until they are stopped."""
        self.release_waiters()
        self.leases.close()
        self.wake_ups.close()

    def _tell_appended(self, revocations: tuple[Revocation, ...], last: int) -> None:
        self.watch.wake(last)
        self._on_revoked(revocations, last)

    def _begin_epoch(self) -> None:
        self.watch.wake(None)
        self.confirmation.look_again()
