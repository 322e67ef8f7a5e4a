"""What operators see of a worker: its numbers, its shortages, its readiness."""

from collections.abc import Awaitable, Callable, Sequence

from issuer.foundation import BackgroundTask, Foundation, Package
from issuer.storage.table_rows import count_rows
from shared.log import dropped_lines
from shared.metrics.scrapes import PERIOD, Scrapes
from shared.shortages import Shortages


class Operators(Package):
    """The numbers of this worker, or of all, and the shortages of this one.

    Args:
        base: gives the metrics and the database.
        needs: each returns when there is what requests need, beside the database, or
            raises `UnavailableError`.

    Attributes:
        shortages: what this worker runs out of.
        scrapes: the page of the metrics.
    """

    def __init__(
        self, base: Foundation, needs: Sequence[Callable[[], Awaitable[object]]]
    ) -> None:
        self._base = base
        self._needs = needs
        self.shortages = Shortages()
        self.scrapes = Scrapes(
            base.metrics.together, self._update, beside=self.shortages.look
        )
        self.tasks = (
            BackgroundTask(base.limits.prune, every=60),
            BackgroundTask(self.scrapes.publish, every=PERIOD),
            BackgroundTask(self.count_rows, every=60),
        )

    async def require_ready(self) -> None:
        """Return when requests can be served (R60).

        Raises:
            UnavailableError: when they cannot; the detail gives the reason.
        """
        await self._base.database.require_writable()
        for require in self._needs:
            await require()

    async def count_rows(self) -> None:
        """Update the rows of each table in the metrics.

        Raises:
            UnavailableError: the database is away.
        """
        self._base.metrics.table_rows(await count_rows(self._base.database))

    async def close(self) -> None:
        """End the rendering of the page."""
        await self.scrapes.close()

    def _update(self) -> None:
        self._base.metrics.database_pool(self._base.database.measure())
        self._base.metrics.dropped_lines(dropped_lines())
