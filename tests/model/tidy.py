"""Makes worlds equal that differ only in ways without any effect.

The exhaustive checker needs this to come to an end soon; the protocol does not.
"""

from __future__ import annotations

from tests.model import issuer_side
from tests.model.mistakes import Mistake
from tests.model.world import Replica, Row, Scope, World

#: Mistakes for which a number that was seen once keeps its meaning.
_REMEMBER = frozenset(
    {
        Mistake.RENEWALS_COUNTED,
        Mistake.RENEWALS_GO_ON,
        Mistake.DELETE_WITHOUT_COMPARE,
        Mistake.LAPSED_WITHOUT_COMPARE,
        Mistake.WATCH_FROM_ROW_STAMP,
        Mistake.RELIANCE_PAST_THE_TERM,
    }
)


def tidy(before: World, world: World, scope: Scope) -> World:
    """Return the world without the parts that have no effect any more.

    That is: renewals too old to rely on, watches of renewals that are in no row and no
    backup, answers without a waiting caller, the order of equal replicas, and the very
    numbers of renewals, of which only sameness counts. In a trace, replicas that are
    alike may therefore change their numbers from one step to the next.
    """
    is_same = world.database is before.database and world.now == before.now
    if scope.looks_at_once and not is_same:
        for index in range(len(world.replicas)):
            world = issuer_side.look(world, scope, index)
    if not is_same and not _REMEMBER & scope.mistakes:
        replicas = tuple(
            _tidy_replica(world, scope, index) for index in range(len(world.replicas))
        )
        world = _number_renewals(world._replace(replicas=replicas))
    if world.answers and not scope.has(Mistake.LATE_ANSWER_TAKEN):
        world = _drop_unawaited(world)
    return _order_replicas(world, scope)


def _tidy_replica(world: World, scope: Scope, index: int) -> Replica:
    replica = world.replicas[index]
    now, bound = issuer_side.clock(world, scope, index), 100 * scope.renew_every
    rows = [*world.database.rows, *(world.backup.rows if world.backup else ())]
    live = {(row.follower, row.renewal) for row in rows}
    renewed = tuple(one for one in replica.renewed if now - one[1] <= bound)
    watched = tuple(one for one in replica.watched if one[:2] in live)
    if renewed == replica.renewed and watched == replica.watched:
        return replica
    return replica._replace(renewed=renewed, watched=watched)


def _number_renewals(world: World) -> World:
    remembered = sorted(issuer_side.remembered_renewals(world))
    if remembered == list(range(1, len(remembered) + 1)):
        return world
    number = {renewal: place for place, renewal in enumerate(remembered, 1)}

    def renumber(rows: tuple[Row, ...]) -> tuple[Row, ...]:
        return tuple(row._replace(renewal=number[row.renewal]) for row in rows)

    replicas = tuple(
        replica._replace(
            watched=tuple((f, number[r], at) for f, r, at in replica.watched)
        )
        for replica in world.replicas
    )
    database = world.database._replace(rows=renumber(world.database.rows))
    backup = world.backup
    if backup is not None:
        backup = backup._replace(rows=renumber(backup.rows))
    return world._replace(database=database, backup=backup, replicas=replicas)


def _drop_unawaited(world: World) -> World:
    awaited = {(one.id, one.number) for one in world.followers if one.id}
    answers = tuple(
        one
        for one in world.answers
        if (one.request.follower, one.request.number) in awaited
    )
    return world if answers == world.answers else world._replace(answers=answers)


def _order_replicas(world: World, scope: Scope) -> World:
    if len(world.replicas) < 2 or len({*scope.replica_rates, *scope.wall_clocks}) > 2:
        return world
    first, second = world.replicas
    if first == second or _key(first) <= _key(second):
        return world
    return world._replace(replicas=(second, first))


def _key(replica: Replica) -> tuple[object, ...]:
    jobs = tuple(job[:3] for job in replica.jobs)
    return (*replica[:3], jobs, replica.slept)
