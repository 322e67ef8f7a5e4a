"""The steps of an issuer replica, one indivisible step a function, numbered I1 to I9.

Between any two steps the process may be paused for as long as time goes on, and other
steps may come in between. A quotation is from `docs/revocation.md`. A step returns the
world after it, or None when it cannot be taken.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.model.mistakes import Mistake
from tests.model.world import (
    Answer,
    Database,
    Goodbye,
    Job,
    Replica,
    Request,
    Row,
    Scope,
    World,
)


def clock(world: World, scope: Scope, replica: int) -> int:
    """Return the reading of a replica's clock, hundredths of a tick."""
    return world.now * scope.replica_rates[replica] - world.replicas[replica].slept


def wall(world: World, scope: Scope, replica: int) -> int:
    """Return a replica's wall clock, which agrees with no other; hundredths."""
    return (world.now + scope.wall_clocks[replica]) * 100


def with_replica(world: World, index: int, replica: Replica) -> World:
    """Return the world with one replica exchanged."""
    replicas = list(world.replicas)
    replicas[index] = replica
    return world._replace(replicas=tuple(replicas))


def with_job(world: World, index: int, job: int, now: Job | None) -> World:
    """Return the world with one job of a replica exchanged, or ended."""
    replica = world.replicas[index]
    jobs = [*replica.jobs[:job], *replica.jobs[job + 1 :], *([now] if now else [])]
    return with_replica(
        world, index, replica._replace(jobs=tuple(sorted(jobs, key=_order)))
    )


def _order(job: Job) -> tuple[object, ...]:
    return job[:3]


def with_database(world: World, database: Database) -> World:
    """Return the world with this committed."""
    return world._replace(database=database)


def find(rows: tuple[Row, ...], follower: int) -> Row | None:
    """Return a follower's row."""
    return next((row for row in rows if row.follower == follower), None)


def notice(world: World) -> World:
    """ "When they differ, one replica begins a new epoch (compare and swap)"."""
    database = world.database
    if database.continuity == world.continuity:
        return world
    epoch = database._replace(
        epoch=world.fresh, continuity=world.continuity, is_settled=False
    )
    return with_database(world, epoch)._replace(fresh=world.fresh + 1)


def change_witness(world: World, scope: Scope) -> World:
    """SQLite: "a random word ... written to a file beside the database"."""
    if not scope.is_sqlite:
        return world
    if not scope.has(Mistake.WITNESS_OVERWRITTEN):
        # A new word over an unseen difference would hide a restore for good.
        world = notice(world)
    database = world.database._replace(continuity=world.fresh)
    world = world._replace(continuity=world.fresh, fresh=world.fresh + 1)
    return with_database(world, database)


def receive(
    world: World, scope: Scope, index: int, request: Request, *, is_twice: bool
) -> World | None:
    """I1: a request reaches a replica, now or late; it may come again.

    What the replica does first follows at once: to be paused between the two is to be
    reached later.
    """
    left = world.left
    if is_twice:
        if not left.duplicates:
            return None
        world = world._replace(left=left._replace(duplicates=left.duplicates - 1))
    else:
        rest = tuple(one for one in world.requests if one != request)
        world = world._replace(requests=rest)
    replica = world.replicas[index]
    job = Job("lease", request, 0, None)
    if any(one.request == request for one in replica.jobs):
        return None
    jobs = (job, *replica.jobs)
    world = with_replica(world, index, replica._replace(jobs=jobs))
    if scope.has(Mistake.PAGE_BEFORE_LEASE):
        return read_page(world, scope, index, 0)
    return begin_lease(world, scope, index, 0)


def begin_lease(world: World, scope: Scope, index: int, job: int) -> World | None:
    """I2: "renewed by this same process at most 5 s ago", by a clock read beforehand.

    If so, the acknowledgement alone is committed. The clock is read before the renewal
    is sent: a pause in between makes the renewal look older than it is, never younger.
    """
    work = world.replicas[index].jobs[job]
    now = clock(world, scope, index)
    renewed = dict(world.replicas[index].renewed)
    bound = 100 * scope.renew_every
    if scope.has(Mistake.RELIANCE_PAST_THE_TERM):
        bound *= 4
    is_recent = now - renewed.get(work.request.follower, -bound - 1) <= bound
    if not is_recent:
        return with_job(world, index, job, work._replace(stage="renew", noted=now))
    world = _write_row(world, scope, index, work.request, is_renewal=False)
    return _after_lease(world, index, job)


def _after_lease(world: World, index: int, job: int) -> World:
    work = world.replicas[index].jobs[job]
    if work.answer is not None:
        return _send(world, index, job, work.answer)
    return with_job(world, index, job, work._replace(stage="read", noted=0))


def commit_lease(
    world: World, scope: Scope, index: int, job: int, *, is_failing: bool
) -> World | None:
    """I3: renew the row, acknowledge, take over: one transaction, which may fail.

    "Lease first, page second": the job goes on to the page only from here.
    """
    work = world.replicas[index].jobs[job]
    if is_failing:
        if not world.left.failures:
            return None
        world = world._replace(
            left=world.left._replace(failures=world.left.failures - 1)
        )
        if scope.has(Mistake.RENEWAL_NOTED_BEFORE_COMMIT):
            world = _note(world, index, work.request.follower, work.noted)
        return with_job(world, index, job, None)
    world = _write_row(world, scope, index, work.request, is_renewal=True)
    if scope.has(Mistake.RENEWAL_DATED_AFTER_COMMIT):
        return with_job(world, index, job, work._replace(stage="date", noted=0))
    world = _note(world, index, work.request.follower, work.noted)
    return _after_lease(world, index, job)


def date_lease(world: World, scope: Scope, index: int, job: int) -> World:
    """The mistake of I3: the clock is read when the commit has come back."""
    work = world.replicas[index].jobs[job]
    now = clock(world, scope, index)
    world = _note(world, index, work.request.follower, now)
    return _after_lease(world, index, job)


def _note(world: World, index: int, follower: int, reading: int) -> World:
    replica = world.replicas[index]
    renewed = tuple(sorted({**dict(replica.renewed), follower: reading}.items()))
    return with_replica(world, index, replica._replace(renewed=renewed))


def _write_row(
    world: World, scope: Scope, index: int, request: Request, *, is_renewal: bool
) -> World:
    """Acknowledge, and with `is_renewal` make sure that the row is there, renewed."""
    old = find(world.database.rows, request.follower)
    if old is None and (
        not is_renewal
        or (scope.has(Mistake.RENEWED_ROW_IS_NOT_MADE) and request.epoch > 0)
    ):
        return world
    is_back = old is not None and old.is_lapsed and is_renewal
    is_blind = scope.has(
        Mistake.WITNESS_IGNORES_RETURNS
        if is_back
        else Mistake.WITNESS_IGNORES_FOLLOWERS
    )
    if (old is None or is_back) and not is_blind:
        world = change_witness(world, scope)
    renewal = _next_renewal(world, scope, old, is_renewal=is_renewal)
    epoch, position = _acknowledge(old, request)
    is_lapsed = old is not None and old.is_lapsed
    if is_renewal and not scope.has(Mistake.LAPSED_STAYS_LAPSED):
        is_lapsed = False
    stamp = 0
    if scope.has(Mistake.WATCH_FROM_ROW_STAMP):
        stamp = wall(world, scope, index) if is_renewal or not old else old.stamp
    row = Row(
        request.follower,
        epoch,
        position,
        request.staleness,
        renewal,
        is_lapsed,
        stamp,
    )
    gone = {request.follower, *request.replaces}
    rest = [one for one in world.database.rows if one.follower not in gone]
    rows = tuple(sorted([*rest, row]))
    return with_database(world, world.database._replace(rows=rows))


def _next_renewal(
    world: World, scope: Scope, old: Row | None, *, is_renewal: bool
) -> int:
    """ "A random word": here a number that is used nowhere else."""
    if old is not None and not is_renewal:
        return old.renewal
    if scope.has(Mistake.RENEWALS_COUNTED):
        return old.renewal + 1 if old else 1
    if scope.has(Mistake.RENEWALS_GO_ON) and old:
        return old.renewal + 1
    return max((0, *remembered_renewals(world))) + 1


def remembered_renewals(world: World) -> set[int]:
    """Return every renewal that a row, a backup or a replica's watch holds."""
    rows = [*world.database.rows, *(world.backup.rows if world.backup else ())]
    watched = (seen[1] for replica in world.replicas for seen in replica.watched)
    return {*(row.renewal for row in rows), *watched}


def _acknowledge(old: Row | None, request: Request) -> tuple[int, int]:
    """ "Positions of one id only rise within an epoch"; a snapshot carries none."""
    if request.epoch == 0:
        return (old.epoch, old.position) if old else (0, 0)
    if old is not None and old.epoch == request.epoch:
        return old.epoch, max(old.position, request.after)
    return request.epoch, request.after


def read_page(world: World, scope: Scope, index: int, job: int) -> World:
    """I4: the page in one read: "each read of the head compares"; 409 or complete."""
    world = notice(world)
    work, database = world.replicas[index].jobs[job], world.database
    request, head = work.request, len(database.entries)
    until = wall(world, scope, index) + 100 * request.staleness
    is_conflict = request.epoch not in (0, database.epoch) or request.after > head
    if scope.has(Mistake.POSITION_KEPT_ACROSS_EPOCHS):
        is_conflict = False
    tokens = 0
    for token in database.entries[request.after :]:
        tokens |= 1 << token
    epoch = 0 if is_conflict else database.epoch
    to = max(head, request.after)
    if not scope.has(Mistake.LEASE_IS_A_DATE):
        until = 0
    answer = Answer(request, epoch, to, tokens, until, world.true_lost)
    if scope.has(Mistake.PAGE_BEFORE_LEASE):
        return with_job(world, index, job, work._replace(stage="lease", answer=answer))
    return _send(world, index, job, answer)


def _send(world: World, index: int, job: int, answer: Answer) -> World:
    """I5: the answer goes off; it is lost when it never arrives."""
    world = with_job(world, index, job, None)
    return world._replace(answers=tuple(sorted({*world.answers, answer})))


STAGES: dict[str, Callable[[World, Scope, int, int], World | None]] = {
    "lease": begin_lease,
    "renew": lambda w, s, i, j: commit_lease(w, s, i, j, is_failing=False),
    "date": date_lease,
    "read": read_page,
}


def look(world: World, scope: Scope, index: int) -> World:
    """I6: look at all rows: the watch of a renewal starts "when it first saw" it."""
    replica, now = world.replicas[index], clock(world, scope, index)
    since = {(name, renewal): at for name, renewal, at in replica.watched}
    first = now
    if scope.has(Mistake.TRUST_FIRST_SIGHT):
        first = now - scope.term(scope.max_staleness)
    watched = tuple(
        (row.follower, row.renewal, since.get((row.follower, row.renewal), first))
        for row in world.database.rows
        if not row.is_lapsed
    )
    replica = replica._replace(watched=watched)
    if world.database.is_settled:
        replica = replica._replace(epoch_watch=(0, 0))
    elif replica.epoch_watch[0] != world.database.epoch:
        at = 0 if scope.has(Mistake.SETTLED_AT_FIRST_SIGHT) else now
        replica = replica._replace(epoch_watch=(world.database.epoch, at))
    return with_replica(world, index, replica)


def reap(world: World, scope: Scope, index: int, follower: int) -> World | None:
    """I7: "deletes the row, provided that `renewal` is still the same"; or it
    lapses.
    """
    row = find(world.database.rows, follower)
    if row is None or scope.has(Mistake.NOBODY_REAPS) or row.is_lapsed:
        return None
    seen = [one for one in world.replicas[index].watched if one[0] == follower]
    if scope.has(Mistake.WATCH_FROM_ROW_STAMP):
        age = wall(world, scope, index) - row.stamp
    elif seen:
        age = clock(world, scope, index) - seen[0][2]
    else:
        return None
    if age < scope.term(row.staleness):
        return None
    does_lapse = scope.allows[_node_of(world, follower)]
    blind = (
        Mistake.LAPSED_WITHOUT_COMPARE if does_lapse else Mistake.DELETE_WITHOUT_COMPARE
    )
    is_same = not seen or seen[0][1] == row.renewal
    if not is_same and not scope.has(blind):
        return None
    rows = [one for one in world.database.rows if one != row]
    if does_lapse:
        rows.append(row._replace(is_lapsed=True))
    return with_database(world, world.database._replace(rows=tuple(sorted(rows))))


def _node_of(world: World, follower: int) -> int:
    # Ids are drawn, so the checker keeps which worker drew which (see verifier_side).
    return follower % len(world.followers)


def settle(world: World, scope: Scope, index: int) -> World | None:
    """I8: "until some replica has watched the new epoch for the longest lease"."""
    epoch, since = world.replicas[index].epoch_watch
    database = world.database
    if epoch != database.epoch or database.is_settled:
        return None
    if scope.has(Mistake.NEVER_SETTLES):
        return None
    if clock(world, scope, index) - since < scope.term(scope.max_staleness):
        return None
    return with_database(world, database._replace(is_settled=True))


def hear(
    world: World, scope: Scope, goodbye: Goodbye, *, is_twice: bool
) -> World | None:
    """I9: some replica gets a goodbye, now or late: one transaction ends the lease.

    One that fails is not answered, and the goodbye may come again or be lost for good.
    A replica's memory of the lease stays: no request has that id any more.
    """
    if is_twice:
        left = world.left
        if not left.duplicates:
            return None
        world = world._replace(left=left._replace(duplicates=left.duplicates - 1))
    else:
        rest = tuple(one for one in world.goodbyes if one != goodbye)
        world = world._replace(goodbyes=rest)
    gone = {goodbye.follower, *goodbye.replaces}
    if scope.has(Mistake.GOODBYE_FOR_THE_MACHINE):
        host = scope.hosts[goodbye.node]
        gone |= {
            row.follower
            for row in world.database.rows
            if scope.hosts[_node_of(world, row.follower)] == host
        }
    rows = [row for row in world.database.rows if row.follower not in gone]
    rows += [
        row._replace(is_lapsed=True)
        for row in world.database.rows
        if row.follower in gone and scope.allows[_node_of(world, row.follower)]
    ]
    return with_database(world, world.database._replace(rows=tuple(sorted(rows))))
