"""Ways to build the proof of native gateways wrong."""

from __future__ import annotations

from enum import Enum


class Mistake(Enum):
    """Ways to build it wrong; the search must find a broken promise in each."""

    PROVEN_BY_ACK = "the main thread's acknowledgement counts, not that of all workers"
    PROVEN_BY_ONE_WORKER = "the first worker that has it counts for all"
    LOST_IS_ENDED = "a process that cannot be reached counts as ended"
    TAKES_OVER_AT_ONCE = "a new follower ends the lease and waits for no window"
    SUCCESSOR_OF_ANOTHER_KIND = "a follower without gateways ends the lease"
    SUCCESSOR_WITH_SMALLER_STALENESS = (
        "a new follower ends the lease, waits by its own S"
    )
    READ_IS_APPLIED = "what was read is acknowledged, whether it is in force or not"
    WINDOW_NOT_NOTED = "the window is noted when it is proven, not before it is sent"
    WINDOW_FROM_NOW = "the window's time counts from when it is written"
    WINDOW_FIRST = "the window comes into force before the entries that it needs"
    FEWER_ENTRIES_FIRST = "an older copy replaces the entries before it closes a window"
    LATER_MARK = "what was reached by the time of the proof counts as proven"
    RECONNECTED_IS_NEW = "a process that comes back replaces what was known of it"
    FOLLOWED_AGAIN_IS_NEW = (
        "what a process was sent is forgotten when it has all under another name"
    )
    WINDOW_IS_ENOUGH = "a stopped process is waited for until its window is over"
