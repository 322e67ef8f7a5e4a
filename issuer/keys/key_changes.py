"""Decides the changes of the signing keys: next, active, retiring, gone. Pure.

A key is published some time before it signs, so that every verifier has it, and stays
published until the last token it signed has expired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from issuer.keys.follower_keys import KeysAwaited
from issuer.keys.store import KeyState
from issuer.storage.lifetimes import is_future
from shared.claims import CLOCK_ALLOWANCE, LONGEST_ACCESS_TTL, MAX_LEEWAY

#: Seconds a key stays published after it last signed.
RETIRE_AFTER: Final = LONGEST_ACCESS_TTL + MAX_LEEWAY + CLOCK_ALLOWANCE
#: Seconds for which a cache may keep the JWKS.
MAX_AGE: Final = 300
_NOBODY: Final = KeysAwaited()


class KeyFacts(NamedTuple):
    """The facts about a key that decide its changes; times are Unix seconds."""

    kid: str
    state: KeyState
    created_at: int
    activated_at: int | None = None
    retired_at: int | None = None

    @property
    def since(self) -> int:
        """Unix seconds at which it entered its state."""
        since = {
            KeyState.ACTIVE: self.activated_at,
            KeyState.RETIRING: self.retired_at,
        }
        return since.get(self.state) or self.created_at

    def age(self, now: int) -> int:
        """Return the seconds since it entered its state."""
        return now - self.since


@dataclass(frozen=True, slots=True)
class KeyRotationTimes:
    """When keys change, in seconds.

    Attributes:
        interval: how long a key stays active; 0: until a rotation is requested.
        publish_ahead: how long a key is published before it signs.
        retire_after: how long a key is published after it last signed.
    """

    interval: int
    publish_ahead: int
    retire_after: int = RETIRE_AFTER


class KeyChange(NamedTuple):
    """Changes to make.

    Attributes:
        publish: whether to make and publish a next key.
        activate: whether the next key becomes active; with `publish`, the new one.
        remove: the kids whose last token has expired.
        redate: the kids whose state is dated from the future; they are dated from now.
    """

    publish: bool = False
    activate: bool = False
    remove: tuple[str, ...] = ()
    redate: tuple[str, ...] = ()


def decide_key_change(
    keys: Sequence[KeyFacts],
    now: int,
    limits: KeyRotationTimes,
    awaited: KeysAwaited = _NOBODY,
    *,
    is_wanted: bool = False,
    is_immediate: bool = False,
) -> KeyChange:
    """Return the changes that are due.

    Args:
        keys: all published keys.
        now: Unix seconds.
        limits: when keys change.
        awaited: the verifiers that have not reported these keys.
        is_wanted: a rotation was requested, independent of the interval.
        is_immediate: the next key becomes active now, published long enough or not;
            verifiers refuse its tokens until they have fetched it.
    """
    # A key that was dated while the clock was ahead would keep its state until the
    # clock reaches that date, and its usual time in addition (requirement R53).
    redate = tuple(key.kid for key in keys if is_future(key.since, now))
    ages = {key.kid: 0 if key.kid in redate else key.age(now) for key in keys}
    remove = tuple(
        key.kid
        for key in keys
        if key.state is KeyState.RETIRING and ages[key.kid] >= limits.retire_after
    )
    following = [key for key in keys if key.state is KeyState.NEXT]
    if following:
        age = max(ages[key.kid] for key in following)
        is_due = is_immediate or _is_known(age, limits, awaited)
        return KeyChange(activate=is_due, remove=remove, redate=redate)
    active = next((key for key in keys if key.state is KeyState.ACTIVE), None)
    lead = max(limits.interval - limits.publish_ahead, 0)
    is_old = limits.interval > 0 and active is not None and ages[active.kid] >= lead
    publish = is_wanted or is_immediate or is_old
    return KeyChange(publish, is_immediate, remove, redate)


def _is_known(age: int, limits: KeyRotationTimes, awaited: KeysAwaited) -> bool:
    """Return whether all verifiers are assumed to have the next key.

    Verifiers report it. For silent verifiers and for other readers of the JWKS the age
    of the key decides; for silent ones with the lifetime of a cached JWKS in addition.
    """
    if awaited.behind:
        return False
    return age >= limits.publish_ahead + (MAX_AGE if awaited.silent else 0)
