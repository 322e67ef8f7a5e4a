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
from issuer.tokens.parts import TokensParts


class RevokingParts(Package):
    """The parts of revoking; `normalise_username` gives a user name's one form."""

    routers = (bulk_routes.router, key_routes.router)

    def __init__(
        self,
        base: Foundation,
        audit: AuditParts,
        keys: KeysParts,
        feed: FeedParts,
        tokens: TokensParts,
        sessions: SessionsParts,
        normalise_username: Callable[[str], str],
    ) -> None:
        access, entries = tokens.access_tokens, feed.feed
        quick = QuickRevocation(base.database, entries, audit.describe_event)
        self.revocations = Revocations(
            base, access, entries, keys.rotation, quick=quick
        )
        self.bulk = BulkRevocation(
            base,
            BulkRows(normalise_username),
            sessions.ending,
            self.revocations,
            access,
            entries,
        )
        self.provides = (self.revocations, self.bulk)
