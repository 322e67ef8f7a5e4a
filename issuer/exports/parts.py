"""Composes what is published for other systems: status lists and security events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from issuer.exports import status_list_routes
from issuer.exports.security_events import SecurityEventOutbox
from issuer.exports.status_list import LISTS_PATH, StatusIndices
from issuer.exports.status_list_tokens import StatusLists
from issuer.feed.parts import FeedParts
from issuer.foundation import BackgroundTask, Foundation, Package
from issuer.keys.parts import KeysParts

if TYPE_CHECKING:
    from issuer.exports.event_delivery import EventDelivery


class ExportsParts(Package):
    """The parts of the exports; None: switched off.

    `metadata` is what they add to the authorization server's metadata (RFC 8414).
    """

    def __init__(self, base: Foundation, keys: KeysParts, feed: FeedParts) -> None:
        settings = base.settings
        self.metadata: dict[str, str] = {}
        self.status_indices: StatusIndices | None = None
        self.status_lists: StatusLists | None = None
        self.event_outbox: SecurityEventOutbox | None = None
        self.event_delivery: EventDelivery | None = None
        if settings.status_list:
            self.status_indices = indices = StatusIndices(base)
            self.status_lists = StatusLists(base, keys.store)
            aggregation = settings.url + LISTS_PATH
            self.metadata["status_list_aggregation_endpoint"] = aggregation
            self.hot_routers = (status_list_routes.router,)
            self.provides = (self.status_lists,)
            feed.feed.also.append(indices.mark_revoked)
            self.tasks = (BackgroundTask(indices.prune, every=60),)
        if settings.caep_endpoints:
            # It needs httpx, a megabyte that few installations have a use for.
            from issuer.exports.event_delivery import EventDelivery

            self.event_outbox = SecurityEventOutbox(base)
            self.event_delivery = delivery = EventDelivery(base, keys.store)
            feed.feed.also.append(self.event_outbox.write)
            self.tasks = (
                *self.tasks,
                BackgroundTask(delivery.deliver_due, every=1),
                BackgroundTask(delivery.prune, every=60),
            )

    async def close(self) -> None:
        """Close the connections to the endpoints."""
        if self.event_delivery is not None:
            await self.event_delivery.close()
