"""The parts of the model of `docs/revocation.md`: plain values, nothing moves here.

Every value is immutable and hashable, so that the exhaustive checker can remember where
it has been. Time is a whole number of ticks. A clock shows `ticks * rate`, a rate being
a percentage: a clock reading is thus in hundredths of a tick, and so is every
duration that is compared with one. Tokens are numbered from 0, and a set of tokens is a
bit mask. Ids, epochs, renewals and continuities are numbers that were never given out
before (`World.fresh`): the issuer's random words and UUIDs.

Fields named `true_...` are the checker's: no step of the protocol reads them.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.model.mistakes import Mistake


class Scope(NamedTuple):
    """The size of the modelled world, its possible faults, and their number.

    Attributes:
        hosts: the machine of each follower; two followers on one share its clock.
        staleness: S of each follower, ticks; after a restart the next of the inner
            tuple.
        allows: whether the follower has `on_stale = "allow"` policies as well.
        keeps_copy: whether followers write a copy to disk.
        renew_every: RENEW_EVERY, ticks.
        margin: ticks that the watch of a lease lasts longer than 1.01 S + RENEW_EVERY.
        max_staleness: ISSUER_MAX_FOLLOWER_STALENESS, ticks.
        host_rates, replica_rates: rates of their clocks.
        wall_clocks: by how many ticks each replica's wall clock is ahead.
        is_sqlite: the witness file detects a restore, not the server.
        opening: what happens first: each a part of the label of the step taken, so that
            a long history need not be searched for from its begin.
        instants: the ticks there are, in order; exploring ends with the last.
        mistakes: which faulty variants of the protocol are switched on.
        looks_at_once: replicas look at the rows whenever they change, and not when they
            like: the first sight can come no earlier, so this leaves out harmless
            histories alone, save with mistakes about what a replica remembers.
        forgives_lost: invariant 1 does not hold for what a restore took out of the
            database, at a follower that reads it afterwards (`docs/revocation.md`).
        The rest are how often something may happen in one history.
    """

    hosts: tuple[int, ...] = (0,)
    staleness: tuple[tuple[int, ...], ...] = ((2,), (2,))
    allows: tuple[bool, ...] = (False, False)
    keeps_copy: bool = False
    renew_every: int = 1
    margin: int = 0
    max_staleness: int = 2
    host_rates: tuple[int, ...] = (100, 100)
    replica_rates: tuple[int, ...] = (100, 100)
    wall_clocks: tuple[int, ...] = (0, 0)
    is_sqlite: bool = False
    opening: tuple[str, ...] = ()
    instants: tuple[int, ...] = (0, 4)
    mistakes: frozenset[Mistake] = frozenset()
    looks_at_once: bool = True
    forgives_lost: bool = True
    asks: int = 2
    revocations: int = 1
    kills: int = 0
    reboots: int = 0
    directory_copies: int = 0
    crashes: int = 0
    failures: int = 0
    duplicates: int = 0
    naps: int = 0
    stops: int = 0
    backups: int = 0
    restores: int = 0
    server_restarts: int = 0

    def has(self, mistake: Mistake) -> bool:
        """Return whether this faulty variant is switched on."""
        return bool(self.mistakes) and mistake in self.mistakes

    def term(self, staleness: int) -> int:
        """Return how long a lease is watched before its row goes, hundredths."""
        factor = 100 if self.has(Mistake.RATES_NOT_ALLOWED_FOR) else 101
        return factor * staleness + 100 * (self.renew_every + self.margin)


class Left(NamedTuple):
    """How often each thing may still happen (see `Scope`)."""

    asks: int
    revocations: int
    kills: int
    reboots: int
    directory_copies: int
    crashes: int
    failures: int
    duplicates: int
    naps: int
    stops: int
    backups: int
    restores: int
    server_restarts: int


class Row(NamedTuple):
    """A row of `followers`; `stamp` is there for mistakes that trust a wall clock."""

    follower: int
    epoch: int
    position: int
    staleness: int
    renewal: int
    is_lapsed: bool
    stamp: int


class Database(NamedTuple):
    """Committed state. The entry at position p is `entries[p - 1]`, a token."""

    epoch: int
    entries: tuple[int, ...]
    continuity: int
    is_settled: bool
    rows: tuple[Row, ...]


class Request(NamedTuple):
    """`GET /revocations`, or the snapshot when `epoch` is 0; `number` is the
    connection.
    """

    node: int
    follower: int
    number: int
    epoch: int
    after: int
    staleness: int
    replaces: tuple[int, ...]
    sent_at: int
    true_sent: int


class Goodbye(NamedTuple):
    """`POST /revocations/goodbye`; `node` is only there for a mistake that reads it."""

    follower: int
    replaces: tuple[int, ...]
    node: int


class Answer(NamedTuple):
    """A complete page (`tokens` a mask), or 409 when `epoch` is 0.

    Attributes:
        until: date at which its reader closes, for a mistake that sends one.
        true_lost: positions that the database it was read from had lost in a restore.
    """

    request: Request
    epoch: int
    to: int
    tokens: int
    until: int
    true_lost: int


class Job(NamedTuple):
    """A request inside a replica; it may stay at a stage for as long as it likes."""

    stage: str
    request: Request
    noted: int
    answer: Answer | None


class Replica(NamedTuple):
    """An issuer process: its own memory is lost when it crashes.

    Attributes:
        renewed: (follower, clock reading) of the renewals this process made.
        watched: (follower, renewal, clock reading of the first sight).
        epoch_watch: (epoch, clock reading of the first sight).
        slept: hundredths by which a clock that stops in sleep is behind.
    """

    renewed: tuple[tuple[int, int], ...] = ()
    watched: tuple[tuple[int, int, int], ...] = ()
    epoch_watch: tuple[int, int] = (0, 0)
    jobs: tuple[Job, ...] = ()
    slept: int = 0


class Call(NamedTuple):
    """A revoking call that waits; position 0 as long as it has not committed."""

    token: int
    epoch: int
    position: int
    is_clear: bool = False


class Relied(NamedTuple):
    """The last complete answer: when its request was sent, and for how long it
    holds.
    """

    sent_at: int
    staleness: int
    until: int
    true_sent: int
    true_lost: int


class Copy(NamedTuple):
    """The copy on disk; `is_original` when it lies where its writer left it."""

    writer: int
    boot: int
    epoch: int
    position: int
    applied: int
    relied: Relied | None
    is_original: bool = True


class Follower(NamedTuple):
    """A verifier's worker process; id 0 when it is not running.

    Attributes:
        epoch, position: the next acknowledgement; epoch 0: the snapshot is next.
        unsaved: (epoch, position) applied in memory, not yet in the copy.
        asked_at: clock reading of the newest request, for a mistake that uses it.
        stopping: 0, or how far a clean stop has come: 1 it answers nothing any more, 2
            the age of its copy is void. 3 only with a mistake: it has said goodbye.
        true_seen: every token it ever applied.
        starts: how often it was started.
    """

    id: int = 0
    epoch: int = 0
    position: int = 0
    applied: int = 0
    relied: Relied | None = None
    unsaved: tuple[int, int] | None = None
    number: int = 0
    asked_at: int = 0
    replaces: tuple[int, ...] = ()
    stopping: int = 0
    true_seen: int = 0
    starts: int = 0


class World(NamedTuple):
    """One moment. `continuity` is the present value, not the one in the database."""

    now: int
    fresh: int
    database: Database
    backup: Database | None
    continuity: int
    replicas: tuple[Replica, ...]
    followers: tuple[Follower, ...]
    copies: tuple[Copy | None, ...]
    booted: tuple[tuple[int, int], ...]
    requests: tuple[Request, ...]
    answers: tuple[Answer, ...]
    calls: tuple[Call, ...]
    left: Left
    goodbyes: tuple[Goodbye, ...] = ()
    true_confirmed: int = 0
    true_lost: int = 0


def start_world(scope: Scope) -> World:
    """Return the world before anything has happened: without followers, epoch is 1."""
    count = len(scope.hosts)
    return World(
        now=scope.instants[0],
        fresh=2,
        database=Database(1, (), 1, True, ()),
        backup=None,
        continuity=1,
        replicas=(Replica(),) * (1 if scope.is_sqlite else 2),
        followers=(Follower(),) * count,
        copies=(None,) * count,
        booted=((0, 0),) * (max(scope.hosts) + 1),
        requests=(),
        answers=(),
        calls=(),
        left=Left(*(getattr(scope, name) for name in Left._fields)),
    )
