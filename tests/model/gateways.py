"""A small world of one follower that writes into gateways, by the product's own ledger.

`verifier.native.in_force.InForce` and `verifier.native.window.window_of` are the real
ones. All around them is simulated: an issuer, gateway processes with a main thread and
two workers, and a connection between. No step is forced, so every pause, loss and
reordering is among the histories. Time is a whole number of seconds.

The issuer has one row for each follower, and a follower has an id of its own. A row
ends when its follower has been silent for its staleness; the two seconds and the one in
a hundred that the issuer adds are left out.

The promise: when an entry is confirmed, no worker of any gateway process lets a request
pass that it revokes.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tests.model.gateway_mistakes import Mistake
from verifier.check.trust import IssuerTrust
from verifier.native.in_force import InForce, Mark
from verifier.native.window import window_of

EPOCH: Final = "one"
#: What a follower may be started with.
STALENESSES: Final = (12, 5)
WORKERS: Final = 2
KEYS_UNTIL: Final = 1e9


class Push(NamedTuple):
    """What a gateway process is sent: entries up to a position, and a window.

    `KEEPS` in place of a window: it has the rules of before, and keeps that of before.
    """

    position: int
    ends_at: float


KEEPS: Final = -1.0
NOTHING: Final = Push(0, 0.0)


@dataclass
class Process:
    """A gateway process.

    Attributes:
        workers: what each worker has.
        on_way: what was sent and the main thread has not accepted.
        accepted: what the main thread has accepted last.
        connection: the name of our connection to it; empty without one.
        sent: what is being waited for; None when the next one may be sent.
        names: of earlier connections to it.
        has_old_rules: the policies have changed since it started.
        is_left: it was left, and not connected to since.
        stopped_at: when it was stopped; 0: it runs. Its workers read the clock once a
            turn, so they go on by that one.
    """

    workers: list[Push] = field(default_factory=lambda: [NOTHING] * WORKERS)
    on_way: Push | None = None
    accepted: Push = NOTHING
    connection: str = ""
    sent: Push | None = None
    sent_mark: Mark | None = None
    names: list[str] = field(default_factory=list)
    has_old_rules: bool = False
    is_left: bool = False
    stopped_at: int = 0


@dataclass
class Row:
    """What the issuer knows of one follower.

    Attributes:
        position: it has acknowledged everything up to it.
        until: when its lease has run out.
    """

    position: int
    until: float


class GatewayWorld:
    """One history.

    Args:
        choose: makes every choice.
        mistakes: which faulty variants are switched on.
    """

    def __init__(self, choose: random.Random, mistakes: frozenset[Mistake]) -> None:
        self._choose = choose
        self._mistakes = mistakes
        # As HAProxy: its workers read the clock once a turn.
        self._may_stop = choose.random() < 0.5
        self.now = 1_000
        self.head = 0
        self._rows: dict[int, Row] = {}
        self._follower = 0
        self._names = 0
        self.processes = [Process()]
        self._start_follower(STALENESSES[0])

    def _has(self, mistake: Mistake) -> bool:
        return mistake in self._mistakes

    # --- the steps -------------------------------------------------------------------

    def step(self) -> str:
        """Take one step by chance; return its name."""
        # What brings a proof about has to happen often enough to be seen at all.
        often = (
            [self._reach_worker] * 8
            + [self._look_for_proof, self._accept] * 4
            + [self._ask, self._send, self._connect] * 3
            + [self._tick, self._revoke] * 2
        )
        rare = [
            *(self._cut, self._kill_gateway, self._start_gateway),
            *(self._restart_follower, self._sleep),
            *([self._stop_gateway, self._go_on] if self._may_stop else []),
            *([self._change_policies, self._cut] * 2 if self._may_stop else []),
        ]
        step = self._choose.choice(rare if self._choose.random() < 0.05 else often)
        step()
        return step.__name__

    def _tick(self) -> None:
        self.now += self._choose.choice((1, 1, 1, 3))

    def _sleep(self) -> None:
        """Let all windows end, or nearly."""
        self.now += self._staleness - self._choose.randrange(3)

    def _revoke(self) -> None:
        self.head += 1

    def _start_follower(self, staleness: int, *, is_plain: bool = False) -> None:
        """Start a follower: one that writes into gateways, or one that does not."""
        self._staleness, self._is_plain = staleness, is_plain
        must_answer = self._may_stop and not self._has(Mistake.WINDOW_IS_ENOUGH)
        self._in_force = InForce(lambda: self.now, staleness, must_answer=must_answer)
        if self._has(Mistake.TAKES_OVER_AT_ONCE):
            self._in_force.ended("")
        self._replaces = -1
        mistake = (
            Mistake.SUCCESSOR_OF_ANOTHER_KIND
            if is_plain
            else Mistake.SUCCESSOR_WITH_SMALLER_STALENESS
        )
        if self._has(mistake) or self._has(Mistake.TAKES_OVER_AT_ONCE):
            self._replaces = self._follower
        self._follower += 1
        # Of a copy that may be older than what was acknowledged, and has no age.
        self._position = self._choose.randint(0, self.head)
        self._in_force.reached(EPOCH, self._position)
        self._fresh_until = 0.0

    def _restart_follower(self) -> None:
        for process in self.processes:
            process.connection, process.sent, process.on_way = "", None, None
            process.names.clear()
        self._start_follower(
            self._choose.choice(STALENESSES),
            is_plain=self._choose.random() < 0.3,
        )
        if self._may_stop and not self._is_plain:
            # It asks the master for all workers long before its predecessor's windows
            # are over.
            for process in self.processes:
                self._connect_to(process)

    def _ask(self) -> None:
        """Acknowledge what is in force, and read all there is, in one exchange."""
        applied = min(self._in_force.position(EPOCH), self._position)
        if self._is_plain or self._has(Mistake.READ_IS_APPLIED):
            applied = self._position
        row = self._rows.setdefault(self._follower, Row(0, 0.0))
        row.position = max(row.position, applied)
        row.until = self.now + self._staleness
        self._rows.pop(self._replaces, None)
        self._position = self.head
        self._in_force.reached(EPOCH, self._position)
        self._fresh_until = self.now + self._staleness

    def _send(self) -> None:
        process = self._pick(lambda p: p.connection and p.sent is None)
        if process is None:
            return
        until = self._fresh_until
        if self._has(Mistake.WINDOW_FROM_NOW):
            until = self.now + self._staleness
        trust = IssuerTrust(
            fresh_until=until, keys_until=KEYS_UNTIL, has_revocations=True
        )
        window = window_of(trust, self.now, self.now)
        ends_at = window.closes_at
        if process.has_old_rules and ends_at:
            ends_at = KEEPS
        push = Push(self._in_force.mark.position, ends_at)
        if not self._has(Mistake.WINDOW_NOT_NOTED):
            self._in_force.sending(process.connection, window.ends_at)
        process.sent = process.on_way = push
        process.sent_mark = self._in_force.mark

    def _accept(self) -> None:
        process = self._pick(lambda p: p.on_way and not p.stopped_at)
        if process is not None and process.on_way is not None:
            process.accepted, process.on_way = process.on_way, None

    def _reach_worker(self) -> None:
        process = self._pick(lambda p: not p.stopped_at)
        if process is None:
            return
        index = self._choose.randrange(WORKERS)
        new = process.accepted
        if new.ends_at == KEEPS:
            new = Push(new.position, process.workers[index].ends_at)
        if self._has(Mistake.FEWER_ENTRIES_FIRST) and not new.ends_at:
            first = Push(new.position, process.workers[index].ends_at)
            if process.workers[index] != first:
                new = first
        if self._has(Mistake.WINDOW_FIRST) and process.workers[index] != new:
            first = Push(process.workers[index].position, new.ends_at)
            if process.workers[index] != first:
                new = first
        process.workers[index] = new

    def _look_for_proof(self) -> None:
        process = self._pick(lambda p: p.connection and p.sent)
        if process is None or process.sent is None or process.sent_mark is None:
            return
        keeps = process.sent.ends_at == KEEPS
        has = [
            (
                worker.position == process.sent.position
                if keeps
                else worker == process.sent
            )
            for worker in process.workers
        ]
        is_proven = all(has)
        if self._has(Mistake.PROVEN_BY_ACK):
            is_proven = process.accepted == process.sent
        if self._has(Mistake.PROVEN_BY_ONE_WORKER):
            is_proven = any(has)
        if not is_proven:
            return
        mark = process.sent_mark
        if self._has(Mistake.LATER_MARK):
            mark = self._in_force.mark
        if self._has(Mistake.WINDOW_NOT_NOTED):
            self._in_force.sending(process.connection, process.sent.ends_at)
        self._in_force.proven(process.connection, mark, has_window=not keeps)
        if self._may_stop:
            # It has everything, so of earlier connections only the window counts.
            for name in process.names:
                if self._has(Mistake.FOLLOWED_AGAIN_IS_NEW):
                    self._in_force.ended(name)
                else:
                    self._in_force.followed_again(name, process.connection)
            process.names.clear()
        process.sent = None

    def _connect(self) -> None:
        process = self._pick(lambda p: not p.connection)
        if process is not None and not self._is_plain:
            self._connect_to(process)

    def _connect_to(self, process: Process) -> None:
        self._names += 1
        process.connection, process.sent = f"c{self._names}", None
        process.is_left = False
        self._in_force.connected(process.connection)

    def _cut(self) -> None:
        process = self._pick(lambda p: p.connection)
        if process is None:
            return
        self._lose(process)

    def _lose(self, process: Process) -> None:
        if process.connection:
            if self._has(Mistake.LOST_IS_ENDED) or (
                self._has(Mistake.RECONNECTED_IS_NEW) and process in self.processes
            ):
                self._in_force.ended(process.connection)
            else:
                self._in_force.disconnected(process.connection)
                if self._may_stop and not process.stopped_at:
                    # For a seventh worker, for example.
                    self._in_force.left(process.connection)
                    process.is_left = True
                if self._in_force.awaits_answer(process.connection):
                    self._note_name(process)
        # What was on its way may still arrive.
        process.connection, process.sent = "", None

    def _note_name(self, process: Process) -> None:
        """Keep the name of a lost connection; of abandoned ones all are kept."""
        if self._choose.random() < 0.5:
            for name in process.names:
                self._in_force.left_again(name, process.connection)
            process.names.clear()
        process.names.append(process.connection)

    def _kill_gateway(self) -> None:
        process = self._pick(lambda _: True)
        if process is not None:
            self.processes.remove(process)
            self._lose(process)
            if self._may_stop:
                # The kernel has it no more.
                for name in process.names:
                    self._in_force.ended(name)

    def _stop_gateway(self) -> None:
        # One that was left and is stopped then: docs/native.md names that gap.
        process = self._pick(lambda p: not p.stopped_at and not p.is_left)
        if process is not None:
            process.stopped_at = self.now

    def _go_on(self) -> None:
        process = self._pick(lambda p: p.stopped_at)
        if process is not None:
            process.stopped_at = 0

    def _change_policies(self) -> None:
        process = self._pick(lambda p: not p.has_old_rules)
        if process is not None:
            process.has_old_rules = True

    def _start_gateway(self) -> None:
        if len(self.processes) < 3:
            self.processes.append(Process())

    def _pick(self, may: Callable[[Process], object]) -> Process | None:
        able = [process for process in self.processes if may(process)]
        return self._choose.choice(able) if able else None

    # --- the promise -----------------------------------------------------------------

    def confirmed(self) -> int:
        """Return the position up to which the issuer says `confirmed`."""
        rows = self._rows.values()
        leased = [row.position for row in rows if row.until > self.now]
        return min(leased, default=self.head)

    def broken_promise(self) -> str:
        """Return what passes although it is confirmed; empty when nothing does."""
        confirmed = self.confirmed()
        row = self._rows.get(self._follower)
        # When no follower with gateways had a lease for a time, the issuer has waited
        # for nothing of a stopped process: docs/revocation.md names that gap.
        is_awaited = not self._is_plain and row is not None and row.until > self.now
        for process in self.processes:
            now = self.now
            if process.stopped_at and is_awaited:
                now = process.stopped_at
            for worker in process.workers:
                if worker.ends_at > now and worker.position < confirmed:
                    return f"{worker} passes, {confirmed} is confirmed"
        return ""


def walk(seed: int, steps: int, mistakes: frozenset[Mistake] = frozenset()) -> str:
    """Walk by chance; return how the promise was broken, or an empty text."""
    world = GatewayWorld(random.Random(seed), mistakes)
    taken = []
    for _ in range(steps):
        taken.append(world.step())
        broken = world.broken_promise()
        if broken:
            return f"seed {seed}: {broken} after {' '.join(taken)}"
    return ""
