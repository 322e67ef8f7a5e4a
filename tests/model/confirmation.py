"""The confirmation protocol of `docs/revocation.md` as a small model.

`moves` lists every step that somebody could take next: `issuer_side` has those of the
issuer's replicas, `revoking` those of a revoking call, `verifier_side` those of the
followers, `faults` what goes wrong. No step is ever forced, which is how pauses,
delays, losses and reordering come in: what does not move while time does was paused,
and a message never delivered was lost.

Four promises are checked:

1. after `confirmed` for an entry, no follower answers 200 for the token it revokes;
2. no follower un-revokes an entry it has applied;
3. past its bound without a complete answer a follower answers 503;
4. when faults stop, a confirmation comes and everybody is fresh (`calm_down`).

Promises 1 to 3 are `broken_promise` of one moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from tests.model import faults, issuer_side, revoking, verifier_side
from tests.model.issuer_side import STAGES
from tests.model.tidy import tidy
from tests.model.verifier_side import broken_promise, does_answer
from tests.model.world import Left, Scope, World, start_world

#: A step: its name in a trace, and the world after it.
Move = tuple[str, World]


#: The steps of a clean stop, in their order.
STOPPING: Final = (
    ("stops answering", verifier_side.stop_answering),
    ("voids its copy", verifier_side.void_copy),
    ("says goodbye", verifier_side.say_goodbye),
)


class Explored(NamedTuple):
    """The findings of the exhaustive checker.

    Attributes:
        states: how many different worlds it has seen.
        broken: the promise that was broken; None when all of them hold.
        trace: the steps that lead there, the shortest there are.
    """

    states: int
    broken: str | None
    trace: tuple[str, ...]


def moves(world: World, scope: Scope) -> Iterator[Move]:
    """Yield every step that can be taken; those that change nothing are left out."""
    for label, after in _all_moves(world, scope):
        after = tidy(world, after, scope) if after is not None else world
        if after != world:
            yield label, after


def _all_moves(world: World, scope: Scope) -> Iterator[tuple[str, World | None]]:
    yield from _issuer_moves(world, scope)
    yield from _follower_moves(world, scope)
    yield from _revoking_moves(world, scope)
    yield from _fault_moves(world, scope)
    after = faults.tick(world, scope)
    if after is not None:
        yield f"tick {after.now} comes", after


def _issuer_moves(world: World, scope: Scope) -> Iterator[tuple[str, World | None]]:
    for index, replica in enumerate(world.replicas):
        name = f"replica {index}"
        for request in world.requests:
            for is_twice in (False, True) if world.left.duplicates else (False,):
                label = f"{name} receives ask {request.number} of {request.follower}"
                after = issuer_side.receive(
                    world, scope, index, request, is_twice=is_twice
                )
                yield label + (", to come again" if is_twice else ""), after
        for place, job in enumerate(replica.jobs):
            of = f"{name}: {job.stage} for {job.request.follower}"
            yield of, STAGES[job.stage](world, scope, index, place)
            if job.stage == "renew" and world.left.failures:
                after = issuer_side.commit_lease(
                    world, scope, index, place, is_failing=True
                )
                yield of + " fails", after
        if not scope.looks_at_once:
            yield f"{name} looks", issuer_side.look(world, scope, index)
        for row in world.database.rows:
            after = issuer_side.reap(world, scope, index, row.follower)
            yield f"{name} ends the lease of {row.follower}", after
        yield f"{name} settles the epoch", issuer_side.settle(world, scope, index)
    for goodbye in world.goodbyes:
        for is_twice in (False, True) if world.left.duplicates else (False,):
            label = f"the goodbye of {goodbye.follower} is heard"
            after = issuer_side.hear(world, scope, goodbye, is_twice=is_twice)
            yield label + (", to come again" if is_twice else ""), after


def _follower_moves(world: World, scope: Scope) -> Iterator[tuple[str, World | None]]:
    for node, follower in enumerate(world.followers):
        name = f"follower {node}"
        if not follower.id:
            yield f"{name} starts", verifier_side.start(world, scope, node)
            continue
        yield f"{name} ({follower.id}) asks", verifier_side.ask(world, scope, node)
        yield f"{name} saves its copy", verifier_side.save(world, scope, node)
        for label, step in STOPPING:
            yield f"{name} {label}", step(world, scope, node)
    for answer in world.answers:
        label = f"follower {answer.request.node} gets answer {answer.request.number}"
        yield label, verifier_side.apply(world, scope, answer)


def _revoking_moves(world: World, scope: Scope) -> Iterator[tuple[str, World | None]]:
    token = scope.revocations - world.left.revocations
    yield f"token {token} is revoked", revoking.revoke(world, scope, token)
    label = f"followers are read before token {token} is revoked"
    yield label, revoking.read_before_commit(world, scope, token)
    for call in world.calls:
        label = f"confirming read for token {call.token}"
        yield label, revoking.confirm(world, scope, call)
        yield f"{label} answered", revoking.commit_after_read(world, scope, call)


def _fault_moves(world: World, scope: Scope) -> Iterator[tuple[str, World | None]]:
    left = world.left
    for index in range(len(world.replicas)):
        if left.crashes:
            yield f"replica {index} crashes", faults.crash(world, scope, index)
        if left.naps:
            label = f"time passes, replica {index}'s machine sleeps"
            yield label, faults.nap(world, scope, index)
    for node in range(len(world.followers)):
        if left.kills:
            yield f"follower {node} is killed", faults.kill(world, scope, node)
        for source in range(len(world.followers)) if left.directory_copies else ():
            label = f"the directory of follower {source} is copied to {node}"
            yield label, faults.copy_directory(world, scope, source, node)
    for host in range(len(world.booted)) if left.reboots else ():
        yield f"host {host} reboots", faults.reboot(world, scope, host)
    yield "the database is backed up", faults.back_up(world, scope)
    yield "the backup is put back", faults.restore(world, scope)
    yield "the server is restarted", faults.restart_server(world, scope)


def replay(scope: Scope, labels: tuple[str, ...]) -> World:
    """Return the world after these steps, each the first with a matching label.

    Raises:
        StopIteration: when there is no such step.
    """
    world = start_world(scope)
    for text in labels:
        world = next(after for label, after in moves(world, scope) if text in label)
    return world


def explore(
    scope: Scope, is_wanted: Callable[[World], str | None] | None = None
) -> Explored:
    """Visit every world that the scope allows, breadth first.

    Args:
        scope: bounds of the world.
        is_wanted: returns the fault of a world; `broken_promise` when not given.
    """
    first = replay(scope, scope.opening)
    came_from: dict[World, tuple[World, str] | None] = {first: None}
    waiting = deque([first])
    while waiting:
        world = waiting.popleft()
        for label, after in moves(world, scope):
            if after in came_from:
                continue
            came_from[after] = (world, label)
            broken = is_wanted(after) if is_wanted else broken_promise(after, scope)
            if broken:
                return Explored(len(came_from), broken, _trace(came_from, after))
            waiting.append(after)
    return Explored(len(came_from), None, ())


def _trace(
    came_from: dict[World, tuple[World, str] | None], last: World
) -> tuple[str, ...]:
    labels = []
    step = came_from[last]
    while step is not None:
        labels.append(step[1])
        step = came_from[step[0]]
    return tuple(reversed(labels))


def calm_down(world: World, scope: Scope, stride: int = 1) -> str | None:
    """Let all go on fairly without faults; return the breach of promise 4, or None.

    One more token is revoked, and must come to be confirmed within three terms of the
    longest lease, with every follower answering and knowing it.

    Args:
        world: where the faults stop.
        scope: its bounds.
        stride: ticks between two rounds of asking; less than any S.
    """
    terms = 3 * (scope.term(scope.max_staleness) // 98 + 1)
    calm = Left(*(0 for _ in Left._fields))
    token = scope.revocations
    for _ in range(0, terms, stride):
        world = world._replace(left=calm._replace(asks=99, revocations=1))
        if not any(call.epoch == world.database.epoch for call in world.calls):
            world = revoking.revoke(world, scope, token) or world
            token += 1
        world = _one_round(world, scope)
        world = world._replace(now=world.now + stride)
    world = _one_round(world._replace(left=calm._replace(asks=99)), scope)
    nodes = range(len(world.followers))
    if not world.true_confirmed >> scope.revocations:
        return "4: no confirmation comes"
    if not all(does_answer(world, scope, node) for node in nodes):
        return "4: a follower stays closed"
    return broken_promise(world, scope)


def _one_round(world: World, scope: Scope) -> World:
    """Everybody asks twice and is answered; replicas look, reap, settle and confirm."""
    for _ in range(2):
        for node in range(len(world.followers)):
            for _, step in STOPPING:
                world = step(world, scope, node) or world
            world = verifier_side.start(world, scope, node) or world
            world = verifier_side.ask(world, scope, node) or world
        world = _drain(world, scope)
    for index in range(len(world.replicas)):
        world = issuer_side.look(world, scope, index)
        for row in world.database.rows:
            world = issuer_side.reap(world, scope, index, row.follower) or world
        world = issuer_side.settle(world, scope, index) or world
    for call in world.calls:
        world = revoking.confirm(world, scope, call) or world
    return world


def _drain(world: World, scope: Scope) -> World:
    """Finish every request and answer that is on its way."""
    last = len(world.replicas) - 1
    for goodbye in world.goodbyes:
        world = issuer_side.hear(world, scope, goodbye, is_twice=False) or world
    while world.requests or world.answers or any(r.jobs for r in world.replicas):
        for request in world.requests:
            after = issuer_side.receive(
                world, scope, request.number % (last + 1), request, is_twice=False
            )
            world = after or world._replace(requests=world.requests[1:])
        for index, replica in enumerate(world.replicas):
            for job in replica.jobs[:1]:
                world = STAGES[job.stage](world, scope, index, 0) or world
        for answer in world.answers:
            world = verifier_side.apply(world, scope, answer) or world
        for node in range(len(world.followers)):
            world = verifier_side.save(world, scope, node) or world
    return world
