"""The one module that imports prometheus_client, and the registry of both programs.

prometheus_client reads its variable for several processes when it is imported. If it is
set, every number goes to a file in a directory that may be full or missing. Our workers
share their numbers in memory (decision 0025), so the variable must have no effect.
"""

from __future__ import annotations

import os
from typing import Any, Final, Literal

# Both spellings of it. They are removed before the import below.
for _name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
    os.environ.pop(_name, None)

from prometheus_client import (  # noqa: E402  the variable is removed first
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import (  # noqa: E402  as above
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)

__all__ = [
    "CONTENT_TYPE",
    "CollectorRegistry",
    "Counter",
    "CounterMetricFamily",
    "Gauge",
    "GaugeMetricFamily",
    "Histogram",
    "HistogramMetricFamily",
    "Metric",
    "Mode",
    "ProcessCollector",
    "Registry",
    "generate_latest",
]

#: The content type of `generate_latest`.
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
#: How the gauges of several workers become one.
Mode = Literal["sum", "max", "min"]

# prometheus_client ships this function without annotations.
_disable_created: Final[Any] = disable_created_metrics
# A second series per counter with its time of creation is of no use here.
_disable_created()


class Registry(CollectorRegistry):
    """The metrics of one worker.

    Attributes:
        modes: how each gauge is merged with those of the other workers, by its name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.modes: dict[str, Mode] = {}

    def gauge(
        self, name: str, text: str, mode: Mode, labels: tuple[str, ...] = ()
    ) -> Gauge:
        """Return a new gauge of this registry.

        Args:
            name: its full name.
            text: its help.
            mode: what the gauges of all living workers are merged to.
            labels: the names of its labels.
        """
        self.modes[name] = mode
        return Gauge(name, text, labels, registry=self)
