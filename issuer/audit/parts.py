"""Composes the audit log's parts; its writer is a part of the foundation."""

from collections.abc import Callable

from issuer.audit import routes
from issuer.audit.counts import AuditCounts
from issuer.audit.linking import AuditLinker
from issuer.audit.log import AuditLog
from issuer.audit.reading import AuditReader
from issuer.audit.retention import AuditRetention
from issuer.audit.seals import Sealer
from issuer.audit.tallies import write_counts
from issuer.foundation import BackgroundTask, Foundation, Package


class AuditParts(Package):
    """The parts of the audit; `find_source` gives the network of an address."""

    routers = (routes.router,)

    def __init__(
        self,
        base: Foundation,
        log: AuditLog,
        sealer: Sealer,
        find_source: Callable[[str], str],
    ) -> None:
        counts = AuditCounts(base, find_source)
        self.describe_event = log.describe_event
        self.note_grant = counts.note_grant
        self.note_failure = counts.note_failure
        self.tallies = counts.tallies
        self.sealer = sealer
        self.linker = AuditLinker(base, sealer)
        self.reader = AuditReader(base.database)
        self.retention = AuditRetention(base, sealer)
        self.provides = (self.reader,)
        self.tasks = (
            # Each minute, so that a jump of the clock is seen when it comes.
            BackgroundTask(self.retention.keep, every=60),
            BackgroundTask(self.linker.link, every=0.5),
            *(BackgroundTask(each.flush, every=10) for each in self.tallies),
        )

    async def close(self) -> None:
        """Write what was counted, as far as the database takes it."""
        await write_counts(self.tallies)
