"""Composes the revoking of single tokens, of signing keys, and of many at once."""

from collections.abc import Callable

from issuer.audit.parts import AuditParts
from issuer.feed.parts import FeedParts
from issuer.foundation import Foundation, Package
from issuer.keys.parts import KeysParts
from issuer.revoking import bulk_routes, key_routes
from issuer.revoking.bulk import BulkRevocation
from issuer.revoking.bulk_rows import BulkRows
from issuer.revoking.quick_revocation import QuickRevocation
from issuer.revoking.revocations import Revocations
from issuer.sessions.parts import SessionsParts


class RevokingParts(Package):
    """The parts of revoking; `normalise_username` gives a user name's one form."""

    routers = (bulk_routes.router, key_routes.router)

    def __init__(
        self,
        base: Foundation,
        audit: AuditParts,
        keys: KeysParts,
        feed: FeedParts,
        sessions: SessionsParts,
        normalise_username: Callable[[str], str],
    ) -> None:
        entries = feed.feed
        quick = QuickRevocation(base.database, entries, audit.log)
        self.revocations = Revocations(base, entries, keys.rotation, quick=quick)
        rows = BulkRows(normalise_username)
        self.bulk = BulkRevocation(
            base, rows, sessions.ending, self.revocations, entries
        )
        self.provides = (self.revocations, self.bulk)
