"""What operators see of a worker: its numbers and its shortages."""

from issuer.foundation import BackgroundTask, Foundation, Package
from shared.log import dropped_lines
from shared.metrics.scrapes import PERIOD, Scrapes
from shared.shortages import Shortages


class Operators(Package):
    """The numbers of this worker, or of all, and the shortages of this one.

    Args:
        base: gives the metrics and the database.

    Attributes:
        shortages: what this worker runs out of.
        scrapes: the page of the metrics.
    """

    def __init__(self, base: Foundation) -> None:
        self._base = base
        self.shortages = Shortages()
        self.scrapes = Scrapes(
            base.metrics.together, self._update, beside=self.shortages.look
        )
        self.tasks = (
            BackgroundTask(base.limits.prune, every=60),
            BackgroundTask(self.scrapes.publish, every=PERIOD),
        )

    async def close(self) -> None:
        """End the rendering of the page."""
        await self.scrapes.close()

    def _update(self) -> None:
        self._base.metrics.database_pool(self._base.database.measure())
        self._base.metrics.dropped_lines(dropped_lines())
