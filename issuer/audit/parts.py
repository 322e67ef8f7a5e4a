"""Composes the audit log's parts; its writer is a part of the foundation."""

from collections.abc import Callable

from issuer.audit import routes
from issuer.audit.counts import AuditCounts
from issuer.audit.linking import AuditLinker
from issuer.audit.log import AuditLog
from issuer.audit.reading import AuditReader
from issuer.audit.retention import AuditRetention
from issuer.audit.tallies import write_counts
from issuer.foundation import BackgroundTask, Foundation, Package


class AuditParts(Package):
    """The parts of the audit; `find_source` gives the network of an address."""

    routers = (routes.router,)

    def __init__(
        self, base: Foundation, log: AuditLog, find_source: Callable[[str], str]
    ) -> None:
        self.log = log
        self.counts = AuditCounts(base, find_source)
        self.linker = AuditLinker(base, log.sealer)
        self.reader = AuditReader(base.database)
        self.retention = AuditRetention(base, log.sealer)
        self.provides = (self.reader,)
        self.tasks = (
            # Each minute, so that a jump of the clock is seen when it comes.
            BackgroundTask(self.retention.keep, every=60),
            BackgroundTask(self.linker.link, every=0.5),
            *(BackgroundTask(each.flush, every=10) for each in self.counts.tallies),
        )

    async def close(self) -> None:
        """Write what was counted, as far as the database takes it."""
        await write_counts(self.counts.tallies)
