"""Everything about the audit, put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from issuer.acts import Act, AuditWriter, Caller, EventDescriber, TallyWriter
from issuer.audit.linking import AuditLinker
from issuer.audit.log import AuditLog
from issuer.audit.reading import AuditReader
from issuer.audit.retention import AuditRetention
from issuer.audit.seals import Sealer
from issuer.audit.tallies import UNKNOWN, AuditTallies, Overflow, TallyLimits
from issuer.clock import Clock, ElapsedClock
from issuer.settings.issuer_settings import IssuerSettings
from issuer.storage.db import Database

#: Tokens given: at most two rows an hour for each key or client and network.
_GRANTS: Final = TallyLimits(3_600, 10_000, Overflow.OLDEST)
#: Failures at a key or client of ours, and failures that name none: told sooner.
_FAILURES: Final = TallyLimits(600, 1_000, Overflow.OTHERS)
_STRANGERS: Final = TallyLimits(600, 200, Overflow.OTHERS)


@dataclass(frozen=True, slots=True)
class AuditParts:
    """The parts; each tells in its own file what it is for."""

    write_event: AuditWriter
    describe_event: EventDescriber
    note_grant: TallyWriter
    note_failure: TallyWriter
    tallies: tuple[AuditTallies, ...]
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
    find_source: Callable[[str], str],
) -> AuditParts:
    """Return the parts.

    Args:
        settings: as read at the start.
        database: where the events are.
        clock: gives the time in milliseconds.
        elapsed: gives seconds.
        prune_time: gives the Unix seconds to prune by.
        on_waiting: told how many events are not in the chain yet.
        find_source: gives the network of a caller's address.
    """
    sealer = Sealer(settings.key_encryption_keys)
    log = AuditLog(clock, sealer)
    write_event = log.write_event

    def keep_tallies(limits: TallyLimits) -> AuditTallies:
        return AuditTallies(
            database,
            write_event,
            clock=clock,
            find_source=find_source,
            limits=limits,
        )

    grants, failures = keep_tallies(_GRANTS), keep_tallies(_FAILURES)
    strangers = keep_tallies(_STRANGERS)

    async def note_failure(act: Act, caller: Caller) -> None:
        # Apart, so that a flood that names nothing of ours hides no attack on a client.
        tallies = strangers if act.subject == UNKNOWN else failures
        await tallies.note(act, caller)

    return AuditParts(
        write_event=write_event,
        describe_event=log.describe_event,
        note_grant=grants.note,
        note_failure=note_failure,
        tallies=(grants, failures, strangers),
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
