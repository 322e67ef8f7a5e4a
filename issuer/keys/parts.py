"""Composes the signing keys."""

from issuer.foundation import BackgroundTask, Foundation, Package
from issuer.keys import jwks_routes
from issuer.keys.check_values import KeyProofs
from issuer.keys.follower_keys import FollowerKeyReports
from issuer.keys.key_list import KeyList
from issuer.keys.rotation import KeyRotation
from issuer.keys.store import KeyStore


class KeysParts(Package):
    """The parts of the signing keys."""

    hot_routers = (jwks_routes.router,)

    def __init__(self, base: Foundation) -> None:
        self.store = KeyStore(base.database, base.settings, base.clock)
        self.rotation = KeyRotation(base, self.store)
        self.reports = FollowerKeyReports(base.database)
        self.key_list = KeyList(base.database, clock=base.clock)
        self.proofs = KeyProofs(base)
        self.provides = (self.store, self.reports, self.key_list)
        self.tasks = (
            BackgroundTask(self.rotation.keep_schedule, every=10),
            BackgroundTask(self.proofs.write, every=1),
            BackgroundTask(self.reports.write, every=1),
        )
