"""Composes the audit log's parts; its writer is a part of the foundation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from issuer.acts import Act, Caller, EventDescriber, TallyWriter
from issuer.audit import routes
from issuer.audit.linking import AuditLinker
from issuer.audit.log import AuditLog
from issuer.audit.reading import AuditReader
from issuer.audit.retention import AuditRetention
from issuer.audit.seals import Sealer
from issuer.audit.tallies import (
    UNKNOWN,
    AuditTallies,
    Overflow,
    TallyLimits,
    write_counts,
)
from issuer.foundation import BackgroundTask, Foundation, Package

#: Tokens given: at most two rows an hour for each key or client and network.
_GRANTS: Final = TallyLimits(3_600, 10_000, Overflow.OLDEST)
#: Failures at a key or client of ours, and failures that name none: written sooner.
_FAILURES: Final = TallyLimits(600, 1_000, Overflow.OTHERS)
_STRANGERS: Final = TallyLimits(600, 200, Overflow.OTHERS)


@dataclass(frozen=True, slots=True)
class AuditParts(Package):
    """The parts of the audit."""

    describe_event: EventDescriber
    note_grant: TallyWriter
    note_failure: TallyWriter
    tallies: tuple[AuditTallies, ...]
    sealer: Sealer
    linker: AuditLinker
    reader: AuditReader
    retention: AuditRetention

    async def close(self) -> None:
        """Write what was counted, as far as the database takes it."""
        await write_counts(self.tallies)


def compose(
    base: Foundation, log: AuditLog, sealer: Sealer, find_source: Callable[[str], str]
) -> AuditParts:
    """Return the parts of `log`; `find_source` gives the network of an address."""
    database, clock, audit = base.database, base.clock, base.audit
    grants, failures, strangers = tallies = tuple(
        AuditTallies(
            database, audit, clock=clock, find_source=find_source, limits=limits
        )
        for limits in (_GRANTS, _FAILURES, _STRANGERS)
    )

    async def note_failure(act: Act, caller: Caller) -> None:
        # Apart, so that a flood that names nothing of ours hides no attack on a client.
        await (strangers if act.subject == UNKNOWN else failures).note(act, caller)

    on_waiting, reader = base.metrics.audit_unlinked, AuditReader(database)
    linker = AuditLinker(database, sealer, elapsed=base.elapsed, on_waiting=on_waiting)
    retention = AuditRetention(
        database,
        sealer,
        clock=clock,
        prune_time=base.prune_time,
        audit=audit,
        max_age=base.settings.audit_retention,
    )
    return AuditParts(
        log.describe_event,
        grants.note,
        note_failure,
        tallies,
        sealer,
        linker,
        reader,
        retention,
        routers=(routes.router,),
        provides=(reader,),
        tasks=(
            # Each minute, so that a jump of the clock is seen when it comes.
            BackgroundTask(retention.keep, every=60),
            BackgroundTask(linker.link, every=0.5),
            *(BackgroundTask(each.flush, every=10) for each in tallies),
        ),
    )
