"""The metrics of several workers as one set of numbers (R39, decision 0025).

Each worker publishes its numbers into its slot of memory that all workers share. The
worker that is scraped adds up all slots. Counters and histograms of a dead worker
stay: the next worker in its slot starts from them. Its gauges end with it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from shared.log import event
from shared.metrics.prometheus import (
    CollectorRegistry,
    Metric,
    Mode,
    Registry,
    generate_latest,
)
from shared.metrics.worker_numbers import (
    Families,
    Numbers,
    Reader,
    add,
    collect,
    encode,
    fit,
    merge_gauges,
    parse_series,
)
from shared.metrics.worker_records import Record, WorkerRecords

_LOG: Final = logging.getLogger(__name__)
#: Seconds after which the gauges of a worker that publishes nothing no longer count. A
#: worker publishes once a second. This ends the gauges of a dead worker even when
#: another program has its pid.
_GAUGES_LAST: Final = 60.0


class MetricsBoard:
    """The numbers of all workers; made before the workers are forked.

    Args:
        slots: the greatest number of concurrent workers, with the new ones of a
            replacement.
        slot_bytes: the most that one worker's numbers take. Memory that is not written
            is not taken.

    Attributes:
        counts: a record per slot.
        page: one record: the newest rendering of all workers together.
    """

    def __init__(self, slots: int, slot_bytes: int) -> None:
        self.slots = slots
        self.slot_bytes = slot_bytes
        self.counts = WorkerRecords(slots, slot_bytes)
        self.page = WorkerRecords(1, slot_bytes)

    def take_over(
        self,
        slot: int,
        *,
        pid: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        is_alive: Callable[[int], bool] | None = None,
    ) -> TakenSlot:
        """Return a slot for this worker, with the totals its last holder left there.

        Call it in the worker. The parent does nothing when a worker ends, so nothing
        can fail there.

        Args:
            slot: its number, unique among the living workers.
            pid: the worker's process; this one when left out.
            clock: gives monotonic seconds, the same in all workers.
            is_alive: returns whether a process runs.

        Raises:
            IndexError: when the board has no such slot.
        """
        if not 0 <= slot < self.slots:
            raise IndexError(f"slot {slot} of {self.slots}")
        return TakenSlot(self, slot, pid or os.getpid(), clock, is_alive or is_running)


class TakenSlot:
    """One worker's slot on the board.

    Attributes:
        number: the slot's, from 0.
    """

    def __init__(
        self,
        board: MetricsBoard,
        slot: int,
        pid: int,
        clock: Callable[[], float],
        is_alive: Callable[[int], bool],
    ) -> None:
        self._board = board
        self.number = slot
        self._pid = pid
        self._clock = clock
        self._is_alive = is_alive
        self._readers = [Reader() for _ in range(board.slots)]
        left = board.counts.read(slot)
        self._base: Families = {} if left is None else self._decode(slot, left).totals
        self._published = self._base

    def publish(self, own: Numbers) -> list[str]:
        """Write the worker's numbers, with those of the slot's earlier holders added.

        Returns:
            The names of the families that do not fit. Their gauges are left out. Their
            totals stay as they were last published, because a total must not fall.
        """
        totals = {name: dict(values) for name, values in self._base.items()}
        add(totals, own.totals)
        numbers, missing = Numbers(totals, own.gauges), list[str]()
        payload = encode(numbers)
        if len(payload) > self._board.slot_bytes:
            numbers, missing = fit(numbers, self._published, self._board.slot_bytes)
            payload = encode(numbers)
        self._published = numbers.totals
        self._board.counts.write(self.number, self._clock(), self._pid, payload)
        return missing

    def read_all(self, modes: Mapping[str, Mode]) -> Numbers:
        """Return the published numbers of all workers, merged.

        Args:
            modes: how gauges are merged, by name.
        """
        together = Numbers({}, {})
        for slot in range(self._board.slots):
            record = self._board.counts.read(slot)
            if record is None:
                continue
            numbers = self._decode(slot, record)
            add(together.totals, numbers.totals)
            if self._counts_gauges(record):
                merge_gauges(together.gauges, numbers.gauges, modes)
        return together

    def _decode(self, slot: int, record: Record) -> Numbers:
        return self._readers[slot].decode(record.payload)

    def _counts_gauges(self, record: Record) -> bool:
        is_recent = self._clock() - record.stamp < _GAUGES_LAST
        return is_recent and self._is_alive(record.pid)

    def write_page(self, stamp: float, page: bytes) -> None:
        """Publish a rendering to the other workers.

        It is not published if it is too large, or if there is a newer one.
        """
        newest = self.read_page()
        is_newer = newest is None or newest.stamp < stamp
        if is_newer and len(page) <= self._board.slot_bytes:
            self._board.page.write(0, stamp, self._pid, page)

    def read_page(self) -> Record | None:
        """Return the newest rendering of any worker; None before the first."""
        return self._board.page.read(0)


class WorkerMetrics:
    """One worker's registry, merged with those of the other workers.

    Args:
        registry: the worker's metrics.
        prefix: of the metric about metrics that are left out.
        slot: the worker's slot; None when it is the only worker.
    """

    def __init__(
        self, registry: Registry, prefix: str, slot: TakenSlot | None = None
    ) -> None:
        self._registry = registry
        self.slot = slot
        self._has_logged = False
        self._parsed: dict[str, tuple[str, dict[str, str]]] = {}
        self._left_out = registry.gauge(
            f"{prefix}_metrics_left_out",
            "Metrics that a worker has no room for, in the worker with most.",
            "max",
        )

    def publish(self) -> None:
        """Publish this worker's numbers to the other workers."""
        if self.slot is not None:
            self._publish(self.slot, list(self._registry.collect()))

    def _publish(self, slot: TakenSlot, families: list[Metric]) -> None:
        missing = slot.publish(collect(families))
        self._left_out.set(len(missing))
        if missing and not self._has_logged:
            self._has_logged = True
            event(_LOG, logging.ERROR, "metrics.left_out", names=missing)

    def render(self) -> bytes:
        """Return the metrics of all workers together in Prometheus' text format."""
        if self.slot is None:
            return generate_latest(self._registry)
        families = list(self._registry.collect())
        self._publish(self.slot, families)
        merged = self.slot.read_all(self._registry.modes)
        together = CollectorRegistry()
        together.register(_Merged(families, merged, self._parsed))
        return generate_latest(together)


class _Merged:
    """A collector of merged numbers.

    Args:
        families: of this worker, for names, types and help.
        numbers: those of all workers.
        parsed: name and labels of each series by its text; kept for the next rendering.
    """

    def __init__(
        self,
        families: list[Metric],
        numbers: Numbers,
        parsed: dict[str, tuple[str, dict[str, str]]],
    ) -> None:
        self._families = families
        self._numbers = numbers
        self._parsed = parsed

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the names were checked where they were registered."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield every family with its merged samples."""
        for own in self._families:
            numbers = self._numbers
            source = numbers.gauges if own.type == "gauge" else numbers.totals
            family = Metric(own.name, own.documentation, own.type)
            for text, value in source.get(own.name, {}).items():
                if text not in self._parsed:
                    self._parsed[text] = parse_series(text)
                name, labels = self._parsed[text]
                family.add_sample(name, labels, value)
            yield family


def is_running(pid: int) -> bool:
    """Return whether a process of this user runs."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
