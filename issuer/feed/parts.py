"""Composes what verifiers follow revocations by."""

from issuer.feed import routes
from issuer.feed.canary import Canary
from issuer.feed.confirmation import Confirmation
from issuer.feed.continuity import Continuity
from issuer.feed.feed import RevocationFeed
from issuer.feed.feed_credential import FeedCredential
from issuer.feed.lease_watch import LeaseWatch
from issuer.feed.leases import Leases
from issuer.feed.pages import FeedPages
from issuer.feed.wake_ups import WakeUps
from issuer.feed.watch import FeedWatch
from issuer.foundation import BackgroundTask, Foundation, Package


class FeedParts(Package):
    """The parts of the feed."""

    hot_routers = (routes.router,)

    def __init__(self, base: Foundation) -> None:
        settings, database, metrics = base.settings, base.database, base.metrics
        self.continuity = continuity = Continuity(base, self._begin_epoch)
        self.feed = RevocationFeed(base, continuity)
        self.watch = FeedWatch(self.feed.head, metrics.feed_waiting)
        self.feed.on_appended.append(lambda _, last: self.watch.wake(last))
        self.confirmation = Confirmation(database, continuity, metrics.confirmation)
        look_again = self.confirmation.look_again
        self.leases = Leases(base, continuity, on_recorded=look_again)
        self.lease_watch = LeaseWatch(base, continuity, on_ended=look_again)
        self.wake_ups = WakeUps(
            database, settings.listen_url or None, self.watch.wake, look_again
        )
        self.canary = Canary(base, self.feed)
        self.credential = FeedCredential(base)
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

    def _begin_epoch(self) -> None:
        self.watch.wake(None)
        self.confirmation.look_again()
