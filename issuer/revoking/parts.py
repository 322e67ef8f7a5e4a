"""Composes the revoking of single tokens, of signing keys, and of many at once."""

from collections.abc import Callable
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class RevokingParts(Package):
    """The parts of revoking."""

    revocations: Revocations
    bulk: BulkRevocation


def compose(
    base: Foundation,
    audit: AuditParts,
    keys: KeysParts,
    feed: FeedParts,
    tokens: TokensParts,
    sessions: SessionsParts,
    normalise_username: Callable[[str], str],
) -> RevokingParts:
    """Return the parts; `normalise_username` gives a user name's one form."""
    database, clock, write_event = base.database, base.clock, base.audit
    access, entries = tokens.access_tokens, feed.feed
    revocations = Revocations(
        database,
        access,
        entries,
        keys.rotation,
        clock=clock,
        audit=write_event,
        quick=QuickRevocation(database, entries, audit.describe_event),
    )
    bulk = BulkRevocation(
        database,
        BulkRows(normalise_username),
        sessions.ending,
        revocations,
        access,
        entries,
        clock=clock,
        audit=write_event,
    )
    return RevokingParts(
        revocations,
        bulk,
        routers=(bulk_routes.router, key_routes.router),
        provides=(revocations, bulk),
    )
