"""A revoking call at some replica, numbered R1 and R2; a pause may come in between.

The call belongs to no replica here: one that dies takes its call along, which is the
same as a call that is never gone on with.
"""

from __future__ import annotations

from tests.model.issuer_side import change_witness, notice, with_database
from tests.model.mistakes import Mistake
from tests.model.world import Call, Scope, World


def revoke(world: World, scope: Scope, token: int) -> World | None:
    """R1: "the revoking transaction has committed": head and entry, at position p."""
    if not world.left.revocations:
        return None
    world = change_witness(world, scope)
    database = world.database
    entries = (*database.entries, token)
    world = with_database(world, database._replace(entries=entries))
    call = Call(token, database.epoch, len(entries))
    calls = [one for one in world.calls if one.token != token]
    left = world.left._replace(revocations=world.left.revocations - 1)
    return world._replace(calls=tuple(sorted([*calls, call])), left=left)


def confirm(world: World, scope: Scope, call: Call) -> World | None:
    """R2: "a new read of `followers` shows no row with another epoch or under p".

    Head, continuity and rows are one read, after the commit. The promise is for an
    entry of the epoch that the read finds: the entry of another epoch at p is unknown.
    """
    if not scope.has(Mistake.CONTINUITY_NOT_COMPARED):
        world = notice(world)
    if not call.position or not _is_clear(world, scope, call):
        return world
    return _told(world, call)


def _told(world: World, call: Call) -> World:
    confirmed = world.true_confirmed | 1 << call.token
    calls = tuple(one for one in world.calls if one != call)
    return world._replace(true_confirmed=confirmed, calls=calls)


def _is_clear(world: World, scope: Scope, call: Call) -> bool:
    database, is_any = world.database, scope.has(Mistake.CONFIRMED_IN_ANY_EPOCH)
    if database.epoch != call.epoch and not is_any:
        return False
    if not database.is_settled and not scope.has(Mistake.NO_SETTLING):
        return False
    return not any(
        row.epoch != database.epoch or row.position < call.position
        for row in database.rows
        if not row.is_lapsed
    )


def read_before_commit(world: World, scope: Scope, token: int) -> World | None:
    """The mistake of R1 and R2: the read comes first, the commit afterwards."""
    if not scope.has(Mistake.CONFIRMING_READ_BEFORE_COMMIT):
        return None
    call = Call(token, world.database.epoch, len(world.database.entries) + 1)
    if any(one.token == token for one in world.calls):
        return None
    call = call._replace(position=0, is_clear=_is_clear(world, scope, call))
    return world._replace(calls=tuple(sorted([*world.calls, call])))


def commit_after_read(world: World, scope: Scope, call: Call) -> World | None:
    """The second half of that mistake: commit, and answer by the earlier read."""
    if call.position or not call.is_clear:
        return None
    after = revoke(world, scope, call.token)
    if after is None:
        return None
    return _told(after, next(one for one in after.calls if one.token == call.token))
