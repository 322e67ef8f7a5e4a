"""R39: for any events in any order, totals are true and never fall.

Workers count, publish, are killed (also in the middle of publishing) and are followed
by others in their slots, in any order; any of them is scraped.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from shared.metrics.worker_metrics import MetricsBoard, TakenSlot
from shared.metrics.worker_numbers import Numbers

SLOTS = 3
REASONS = ("expired", "revoked")
slots = st.integers(0, SLOTS - 1)


class Living:
    """A living worker: its counts, and the published part of them."""

    def __init__(self, pid: int, taken: TakenSlot) -> None:
        self.pid = pid
        self.taken = taken
        self.counted = dict.fromkeys(REASONS, 0)
        self.published = dict(self.counted)
        self.gauge: int | None = None
        self.published_gauge: int | None = None

    def numbers(self) -> Numbers:
        gauges = {} if self.gauge is None else {"facts": {"facts": float(self.gauge)}}
        totals = {reason: float(count) for reason, count in self.counted.items()}
        return Numbers({"checks": totals}, gauges)


class DyingMemory:
    """Shared memory with a writer that is killed after some bytes."""

    def __init__(self, memory: Any, left: int) -> None:
        self.memory = memory
        self.left = left

    def __getitem__(self, where: slice) -> bytes:
        found: bytes = self.memory[where]
        return found

    def __setitem__(self, where: slice, written: bytes) -> None:
        some = written[: self.left]
        self.memory[where.start : where.start + len(some)] = some


class Boards(RuleBasedStateMachine):
    """A board and a model of it."""

    @initialize()
    def begin(self) -> None:
        self.board = MetricsBoard(SLOTS, 2_000)
        self.living: dict[int, Living] = {}
        self.left = dict.fromkeys(REASONS, 0)
        self.shown = dict.fromkeys(REASONS, 0.0)
        self.pids = 0
        for slot in range(SLOTS):
            self.start(slot)

    @rule(slot=slots)
    def start(self, slot: int) -> None:
        """A worker takes over the slot of one that has ended."""
        if slot not in self.living:
            self.pids += 1
            taken = self.board.take_over(
                slot,
                pid=self.pids,
                clock=lambda: 0.0,
                is_alive=lambda pid: pid in {w.pid for w in self.living.values()},
            )
            self.living[slot] = Living(self.pids, taken)

    @rule(slot=slots, reason=st.sampled_from(REASONS), amount=st.integers(1, 9))
    def count(self, slot: int, reason: str, amount: int) -> None:
        if slot in self.living:
            self.living[slot].counted[reason] += amount

    @rule(slot=slots, value=st.none() | st.integers(-9, 9))
    def set_gauge(self, slot: int, value: int | None) -> None:
        if slot in self.living:
            self.living[slot].gauge = value

    @rule(slot=slots)
    def publish(self, slot: int) -> None:
        if slot in self.living:
            worker = self.living[slot]
            assert worker.taken.publish(worker.numbers()) == []
            worker.published = dict(worker.counted)
            worker.published_gauge = worker.gauge

    @rule(slot=slots)
    def kill(self, slot: int) -> None:
        if slot in self.living:
            worker = self.living.pop(slot)
            for reason in REASONS:
                self.left[reason] += worker.published[reason]

    @rule(slot=slots, written=st.integers(0, 150))
    def kill_while_it_publishes(self, slot: int, written: int) -> None:
        if slot in self.living:
            worker, records = self.living[slot], self.board.counts
            memory, before = records._memory, records.read(slot)
            records._memory = DyingMemory(memory, written)  # type: ignore[assignment]
            worker.taken.publish(worker.numbers())
            records._memory = memory
            if records.read(slot) != before:
                worker.published = dict(worker.counted)
            self.kill(slot)

    @precondition(lambda self: bool(self.living))
    @rule(data=st.data())
    def scrape(self, data: st.DataObject) -> None:
        """Any living worker publishes and merges, as for a scrape."""
        slot = data.draw(st.sampled_from(sorted(self.living)))
        self.publish(slot)
        merged = self.living[slot].taken.read_all({"facts": "sum"})
        expected = dict(self.left)
        for worker in self.living.values():
            for reason in REASONS:
                expected[reason] += worker.published[reason]
        assert merged.totals == {"checks": expected}
        assert all(merged.totals["checks"][r] >= self.shown[r] for r in REASONS)
        self.shown = merged.totals["checks"]
        gauges = [w.published_gauge for w in self.living.values()]
        shown = [gauge for gauge in gauges if gauge is not None]
        assert merged.gauges.get("facts", {}) == (
            {"facts": sum(shown)} if shown else {}
        )


TestBoards = Boards.TestCase
