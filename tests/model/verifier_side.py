"""The steps of a verifier's worker process, numbered V1 to V8, and its promises.

Time may go on, and anything else may happen, between any two steps: a pause.
"""

from __future__ import annotations

from tests.model.mistakes import Mistake
from tests.model.world import (
    Answer,
    Copy,
    Follower,
    Goodbye,
    Relied,
    Request,
    Scope,
    World,
)


def clock(world: World, scope: Scope, node: int) -> int:
    """Return CLOCK_BOOTTIME of the machine a follower runs on, hundredths."""
    host = scope.hosts[node]
    return (world.now - world.booted[host][1]) * scope.host_rates[host]


def with_follower(world: World, node: int, follower: Follower) -> World:
    """Return the world with one follower exchanged."""
    followers = list(world.followers)
    followers[node] = follower
    return world._replace(followers=tuple(followers))


def with_copy(world: World, node: int, copy: Copy | None) -> World:
    """Return the world with one copy on disk exchanged."""
    copies = list(world.copies)
    copies[node] = copy
    return world._replace(copies=tuple(copies))


def bound(scope: Scope, node: int, starts: int) -> int:
    """Return S of a process; a restart may come with another setting."""
    settings = scope.staleness[node]
    return settings[min(starts, len(settings)) - 1]


def start(world: World, scope: Scope, node: int) -> World | None:
    """V1: a worker starts "under an id of its own that it makes at its start"."""
    old, copy = world.followers[node], world.copies[node]
    if old.id:
        return None
    count = len(world.followers)
    identity = (world.fresh // count + 1) * count + node
    new = Follower(id=identity, starts=old.starts + 1)
    world = world._replace(fresh=identity + 1)
    if copy is not None:
        new = _read_copy(world, scope, node, new, copy)
        if new.relied is not None and not scope.has(Mistake.AGE_KEEPS_ITS_BOUND):
            # Its first request ends the lease that the age had until now.
            world = with_copy(world, node, copy._replace(relied=new.relied))
    return with_follower(world, node, new)


def _read_copy(
    world: World, scope: Scope, node: int, new: Follower, copy: Copy
) -> Follower:
    """ "Its entries and keys are used"; its age only when the writer has ended."""
    new = new._replace(
        epoch=copy.epoch,
        position=copy.position,
        applied=copy.applied,
        true_seen=copy.applied,
    )
    is_left = copy.relied is None and scope.has(Mistake.ID_USED_AFTER_GOODBYE)
    if scope.has(Mistake.SAME_ID_AGAIN) or is_left:
        new = new._replace(id=copy.writer)
    is_boot = copy.boot == world.booted[scope.hosts[node]][0]
    has_age = (is_boot or scope.has(Mistake.AGE_ACROSS_REBOOT)) and (
        copy.is_original or scope.has(Mistake.AGE_OF_COPIED_DIRECTORY)
    )
    if has_age and copy.relied is not None:
        relied, least = copy.relied, bound(scope, node, new.starts)
        if not scope.has(Mistake.NEW_BOUND_FOR_OLD_ANSWER):
            least = min(least, relied.staleness)
        new = new._replace(relied=relied._replace(staleness=least))
    is_over = copy.is_original or scope.has(Mistake.COPIED_DIRECTORY_TAKEN_OVER)
    if is_boot and is_over and new.id != copy.writer:
        new = new._replace(replaces=(copy.writer,))
    return new


def ask(world: World, scope: Scope, node: int) -> World | None:
    """V2: "`t` is its own clock before it sent that request"."""
    me = world.followers[node]
    if not me.id or not world.left.asks or me.stopping:
        return None
    epoch, after = me.epoch, me.position
    if scope.has(Mistake.ACKNOWLEDGED_BEFORE_COPY) and me.unsaved:
        epoch, after = me.unsaved
    now = clock(world, scope, node)
    request = Request(
        node=node,
        follower=me.id,
        number=me.number + 1,
        epoch=epoch,
        after=after if epoch else 0,
        staleness=bound(scope, node, me.starts),
        replaces=me.replaces,
        sent_at=now,
        true_sent=world.now,
    )
    me = me._replace(number=me.number + 1)
    if scope.has(Mistake.LATE_ANSWER_TAKEN):
        me = me._replace(asked_at=now)
    world = with_follower(world, node, me)
    return world._replace(
        requests=tuple(sorted({*world.requests, request})),
        left=world.left._replace(asks=world.left.asks - 1),
    )


def apply(world: World, scope: Scope, answer: Answer) -> World | None:
    """V3: apply an answer; one to a dead process or to a request given up is
    dropped.
    """
    node, request = answer.request.node, answer.request
    rest = tuple(one for one in world.answers if one != answer)
    world = world._replace(answers=rest)
    me = world.followers[node]
    is_awaited = me.number == request.number
    if _is_over(me, scope):
        return world
    if me.id != request.follower or not (
        is_awaited or scope.has(Mistake.LATE_ANSWER_TAKEN)
    ):
        return world
    if answer.epoch == 0:
        # 409: "every verifier takes the snapshot"; applied entries stay.
        return with_follower(world, node, me._replace(epoch=0, unsaved=None))
    known = me.applied
    if scope.has(Mistake.SNAPSHOT_REPLACES) and request.epoch == 0:
        known = 0
    sent_at, true_sent = request.sent_at, request.true_sent
    if not is_awaited:
        sent_at = me.asked_at
    if scope.has(Mistake.AGE_FROM_ARRIVAL):
        sent_at = clock(world, scope, node)
    relied = Relied(
        sent_at, request.staleness, answer.until, true_sent, answer.true_lost
    )
    me = me._replace(
        applied=known | answer.tokens,
        true_seen=me.true_seen | answer.tokens,
        relied=relied,
        unsaved=(answer.epoch, answer.to),
        replaces=(),
    )
    if not scope.keeps_copy:
        me = me._replace(epoch=answer.epoch, position=answer.to, unsaved=None)
    return with_follower(world, node, me)


def save(world: World, scope: Scope, node: int) -> World | None:
    """V4: "entries are in the copy before they are acknowledged"; S goes with them."""
    me = world.followers[node]
    if not me.id or me.unsaved is None or _is_over(me, scope):
        return None
    epoch, position = me.unsaved
    boot = world.booted[scope.hosts[node]][0]
    copy = Copy(me.id, boot, epoch, position, me.applied, me.relied)
    me = me._replace(epoch=epoch, position=position, unsaved=None)
    return with_copy(with_follower(world, node, me), node, copy)


def _is_over(me: Follower, scope: Scope) -> bool:
    """Whether it follows nothing any more: it stops, and its tasks have ended."""
    return bool(me.stopping) and not scope.has(Mistake.SAVED_AFTER_VOID)


def stop_answering(world: World, scope: Scope, node: int) -> World | None:
    """V6: a clean stop: "the last 200 has left", and the task that follows the feed has
    ended.
    """
    me = world.followers[node]
    if not me.id or me.stopping or not world.left.stops:
        return None
    left = world.left._replace(stops=world.left.stops - 1)
    return with_follower(world._replace(left=left), node, me._replace(stopping=1))


def void_copy(world: World, scope: Scope, node: int) -> World | None:
    """V7: "the age of the copy is void": its entries stay."""
    me, copy = world.followers[node], world.copies[node]
    if me.stopping != 1:
        return None
    if copy is not None:
        world = with_copy(world, node, copy._replace(relied=None))
    return with_follower(world, node, me._replace(stopping=2))


def say_goodbye(world: World, scope: Scope, node: int) -> World | None:
    """V8: "only then the issuer is told", by its own id; the process ends."""
    me, due = world.followers[node], 2
    if scope.has(Mistake.GOODBYE_BEFORE_COPY_IS_VOID):
        due = 1
    is_early = scope.has(Mistake.GOODBYE_BEFORE_LAST_ANSWER) and world.left.stops > 0
    if not me.id or (me.stopping != due and not (is_early and not me.stopping)):
        return None
    goodbye = Goodbye(me.id, me.replaces, node)
    after = Follower(starts=me.starts)
    if not me.stopping:
        after = me._replace(stopping=3)
    world = world._replace(goodbyes=tuple(sorted({*world.goodbyes, goodbye})))
    return with_follower(world, node, after)


def does_answer(world: World, scope: Scope, node: int) -> bool:
    """V5: whether a check gets a verdict: "it may answer 200 until t + S", then 503."""
    me = world.followers[node]
    if not me.id or me.relied is None or me.stopping in (1, 2):
        return False
    if scope.has(Mistake.LEASE_IS_A_DATE):
        return world.now * 100 < me.relied.until
    until = me.relied.sent_at + 100 * me.relied.staleness
    return clock(world, scope, node) < until


def broken_promise(world: World, scope: Scope) -> str | None:
    """Return which promise this moment breaks (1 to 3 of the tests), or None."""
    for node, me in enumerate(world.followers):
        if not me.id:
            continue
        if me.true_seen & ~me.applied:
            return f"2: follower {node} has un-revoked an entry"
        if not does_answer(world, scope, node) or me.relied is None:
            continue
        # By true time the bound may come 1 % late: a rate is not exact.
        if (world.now - me.relied.true_sent) * 100 >= 101 * me.relied.staleness:
            return f"3: follower {node} answers past its bound"
        missing = world.true_confirmed & ~me.applied
        if scope.forgives_lost:
            missing &= ~me.relied.true_lost
        if missing:
            return f"1: follower {node} answers 200 for a token confirmed dead"
    return None
