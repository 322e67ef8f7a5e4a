"""Everything about the audit, put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from issuer.acts import AuditWriter, EventDescriber
from issuer.audit.linking import AuditLinker
from issuer.audit.log import AuditLog
from issuer.audit.reading import AuditReader
from issuer.audit.retention import AuditRetention
from issuer.audit.seals import Sealer
from issuer.clock import Clock, ElapsedClock
from issuer.db import Database
from issuer.settings import IssuerSettings


@dataclass(frozen=True, slots=True)
class AuditParts:
    """The parts; each tells in its own file what it is for."""

    write_event: AuditWriter
    describe_event: EventDescriber
    sealer: Sealer
    linker: AuditLinker
    reader: AuditReader
    retention: AuditRetention


def compose_audit(
    settings: IssuerSettings,
    database: Database,
    *,
    clock: Clock,
    elapsed: ElapsedClock,
    prune_time: Callable[[], int],
    on_waiting: Callable[[int], None],
) -> AuditParts:
    """Return the parts.

    Args:
        settings: as read at the start.
        database: where the events are.
        clock: gives the time in milliseconds.
        elapsed: gives seconds.
        prune_time: gives the Unix seconds to prune by.
        on_waiting: told how many events are not in the chain yet.
    """
    sealer = Sealer(settings.key_encryption_keys)
    log = AuditLog(clock, sealer)
    write_event = log.write_event
    return AuditParts(
        write_event=write_event,
        describe_event=log.describe_event,
        sealer=sealer,
        linker=AuditLinker(database, sealer, elapsed=elapsed, on_waiting=on_waiting),
        reader=AuditReader(database),
        retention=AuditRetention(
            database,
            sealer,
            clock=clock,
            prune_time=prune_time,
            audit=write_event,
            max_age=settings.audit_retention,
        ),
    )
