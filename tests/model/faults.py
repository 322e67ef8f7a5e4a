"""Possible faults: processes, machines and the database, as often as is left."""

from __future__ import annotations

from tests.model import issuer_side
from tests.model.mistakes import Mistake
from tests.model.verifier_side import with_copy, with_follower
from tests.model.world import Follower, Scope, World


def take(world: World, name: str) -> World | None:
    """Return the world with one fewer of what is left of something, or None."""
    count = getattr(world.left, name)
    if not count:
        return None
    return world._replace(left=world.left._replace(**{name: count - 1}))


def tick(world: World, scope: Scope) -> World | None:
    """Time goes on: an idle process was paused, an undelivered message delayed."""
    later = [instant for instant in scope.instants if instant > world.now]
    return world._replace(now=later[0]) if later else None


def nap(world: World, scope: Scope, index: int) -> World | None:
    """Time goes on while a replica's machine sleeps; CLOCK_BOOTTIME counts that."""
    after = take(world, "naps")
    after = tick(after, scope) if after else None
    if after is None or not scope.has(Mistake.CLOCK_STOPS_IN_SLEEP):
        return after
    replica = after.replicas[index]
    slept = replica.slept + (after.now - world.now) * scope.replica_rates[index]
    return issuer_side.with_replica(after, index, replica._replace(slept=slept))


def crash(world: World, scope: Scope, index: int) -> World | None:
    """A replica is killed and started: its work and its view are lost."""
    after = take(world, "crashes")
    if after is None:
        return None
    fresh = issuer_side.Replica(slept=world.replicas[index].slept)
    return issuer_side.with_replica(after, index, fresh)


def kill(world: World, scope: Scope, node: int) -> World | None:
    """A follower is killed; its copy stays on disk."""
    old = world.followers[node]
    after = take(world, "kills")
    if after is None or not old.id:
        return None
    return with_follower(after, node, Follower(starts=old.starts))


def reboot(world: World, scope: Scope, host: int) -> World | None:
    """A machine starts anew: another boot id, and its clock from 0."""
    after = take(world, "reboots")
    if after is None:
        return None
    for node, where in enumerate(scope.hosts):
        if where == host:
            old = after.followers[node]
            after = with_follower(after, node, Follower(starts=old.starts))
    booted = list(after.booted)
    booted[host] = (booted[host][0] + 1, after.now)
    return after._replace(booted=tuple(booted))


def copy_directory(world: World, scope: Scope, source: int, to: int) -> World | None:
    """Somebody copies a state directory, for a follower that does not run yet."""
    after = take(world, "directory_copies")
    copy = world.copies[source]
    if after is None or copy is None or source == to or world.followers[to].id:
        return None
    return with_copy(after, to, copy._replace(is_original=False))


def back_up(world: World, scope: Scope) -> World | None:
    """The database is copied as it is now."""
    after = take(world, "backups")
    return after._replace(backup=world.database) if after else None


def restore(world: World, scope: Scope) -> World | None:
    """The backup is put back; SQLite's issuer is stopped for that, PostgreSQL's not."""
    after = take(world, "restores")
    if after is None or world.backup is None:
        return None
    kept = world.backup.entries
    for token in world.database.entries:
        # An unconfirmed entry must not be confirmed after its loss: no excuse
        # there.
        if token not in kept and after.true_confirmed >> token & 1:
            after = after._replace(true_lost=after.true_lost | 1 << token)
    after = after._replace(database=world.backup)
    if scope.is_sqlite:
        return after._replace(replicas=(issuer_side.Replica(),))
    return after._replace(continuity=after.fresh, fresh=after.fresh + 1)


def restart_server(world: World, scope: Scope) -> World | None:
    """PostgreSQL is stopped at once and started: committed rows are there."""
    after = take(world, "server_restarts")
    if after is None:
        return None
    return after._replace(continuity=after.fresh, fresh=after.fresh + 1)
