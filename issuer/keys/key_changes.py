"""What is due to the signing keys: next, active, retiring, gone. Pure.

A key is published some time before it signs, so that every verifier knows it by then,
and stays published until the last token it signed has expired.
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
#: Seconds for which anybody may keep the JWKS without asking again.
MAX_AGE: Final = 300
_NOBODY: Final = KeysAwaited()


class KeyFacts(NamedTuple):
    """What a decision about a key needs; times are Unix seconds."""

    kid: str
    state: KeyState
    created_at: int
    activated_at: int | None = None
    retired_at: int | None = None

    @property
    def since(self) -> int:
        """Unix seconds at which it came into its state."""
        since = {
            KeyState.ACTIVE: self.activated_at,
            KeyState.RETIRING: self.retired_at,
        }
        return since.get(self.state) or self.created_at

    def age(self, now: int) -> int:
        """Return the seconds since it came into its state."""
        return now - self.since


@dataclass(frozen=True, slots=True)
class RotationLimits:
    """When keys change, in seconds.

    Attributes:
        interval: how long a key stays active; 0: until a rotation is asked for.
        publish_ahead: how long a key is published before it signs.
        retire_after: how long a key is published after it last signed.
    """

    interval: int
    publish_ahead: int
    retire_after: int = RETIRE_AFTER


class KeyChange(NamedTuple):
    """What is to be done to the keys.

    Attributes:
        publish: whether a next key is to be made and published.
        activate: whether the next key is to take over; with `publish`, the new one.
        remove: the kids whose last token has expired.
        redate: the kids whose state is dated from the future: it counts from now.
    """

    publish: bool = False
    activate: bool = False
    remove: tuple[str, ...] = ()
    redate: tuple[str, ...] = ()


def decide_key_change(
    keys: Sequence[KeyFacts],
    now: int,
    limits: RotationLimits,
    awaited: KeysAwaited = _NOBODY,
    *,
    is_wanted: bool = False,
    is_immediate: bool = False,
) -> KeyChange:
    """Decide what is due.

    Args:
        keys: all published keys.
        now: Unix seconds.
        limits: when keys change.
        awaited: the verifiers that have not said that they have these keys.
        is_wanted: a rotation was asked for, whatever the interval says.
        is_immediate: the next key takes over now, published long enough or not; the
            verifiers refuse its tokens until they have fetched it.
    """
    # Dated while the clock was ahead, a key would sign, or wait, until the clock gets there
    # and its time on top (requirement R53).
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


def _is_known(age: int, limits: RotationLimits, awaited: KeysAwaited) -> bool:
    """Whether everybody may be taken to have the next key.

    Verifiers say so. Who says nothing of keys, and who is no verifier, is counted by
    time: the former with the time a cache may keep the JWKS on top.
    """
    if awaited.behind:
        return False
    return age >= limits.publish_ahead + (MAX_AGE if awaited.silent else 0)
