"""Composes what is published for other systems: status lists and security events."""

from collections.abc import Mapping
from dataclasses import dataclass

from issuer.exports import status_list_routes
from issuer.exports.event_delivery import EventDelivery
from issuer.exports.security_events import SecurityEventOutbox
from issuer.exports.status_list import LISTS_PATH, StatusIndices
from issuer.exports.status_list_tokens import StatusLists
from issuer.feed.feed import WriteAlso
from issuer.foundation import BackgroundTask, Foundation, Package
from issuer.keys.parts import KeysParts


@dataclass(frozen=True, slots=True)
class ExportsParts(Package):
    """The parts of the exports; None: switched off.

    `metadata` is what they add to the authorization server's metadata (RFC 8414), and
    `write_also` writes with every revocation.
    """

    metadata: Mapping[str, str]
    write_also: list[WriteAlso]
    status_indices: StatusIndices | None
    status_lists: StatusLists | None
    event_outbox: SecurityEventOutbox | None
    event_delivery: EventDelivery | None

    async def close(self) -> None:
        """Close the connections to the endpoints."""
        if self.event_delivery is not None:
            await self.event_delivery.close()


def compose(base: Foundation, keys: KeysParts) -> ExportsParts:
    """Return the parts."""
    settings, database, clock = base.settings, base.database, base.clock
    url, prune_time = settings.url, base.prune_time
    indices = lists = outbox = delivery = None
    write_also: list[WriteAlso] = []
    tasks: list[BackgroundTask] = []
    if settings.status_list:
        ttl = settings.status_list_ttl
        indices = StatusIndices(
            database, clock=clock, issuer_url=url, prune_time=prune_time
        )
        lists = StatusLists(database, keys.store, clock=clock, issuer_url=url, ttl=ttl)
        write_also.append(indices.mark_revoked)
        tasks.append(BackgroundTask(indices.prune, every=60))
    if endpoints := settings.caep_endpoints:
        outbox = SecurityEventOutbox(endpoints, clock=clock, issuer_url=url)
        delivery = EventDelivery(
            database,
            keys.store,
            endpoints,
            clock=clock,
            issuer_url=url,
            retry_for=settings.caep_retry_for,
            ca_file=settings.ca_file,
            count=base.metrics.security_event,
            on_waiting=base.metrics.security_event_waiting,
        )
        write_also.append(outbox.write)
        tasks.append(BackgroundTask(delivery.deliver_due, every=1))
        tasks.append(BackgroundTask(delivery.prune, every=60))
    aggregation = {"status_list_aggregation_endpoint": url + LISTS_PATH}
    return ExportsParts(
        {} if lists is None else aggregation,
        write_also,
        indices,
        lists,
        outbox,
        delivery,
        hot_routers=() if lists is None else (status_list_routes.router,),
        provides=() if lists is None else (lists,),
        tasks=tasks,
    )
