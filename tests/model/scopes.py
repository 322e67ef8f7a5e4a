"""The small worlds that are explored to the end, and where each mistake must show.

A scope allows the events of one group of arguments in `docs/revocation.md`. Without a
mistake nothing may be found in any of them; with one, a history that breaks a promise.
"""

from __future__ import annotations

from typing import Final

from tests.model.mistakes import Mistake
from tests.model.world import Scope

#: Follower 0 starts and asks, asks again, and everything goes well.
_SECOND: Final = ("follower 0 (", "receives", "renew", "read", "gets")
_FIRST: Final = ("follower 0 starts", *_SECOND)

SCOPES: Final = {
    "pauses": Scope(instants=(0, 1, 3, 4)),
    "late looks": Scope(looks_at_once=False),
    "wall clocks": Scope(wall_clocks=(0, 4)),
    "naps": Scope(naps=1),
    "failures": Scope(failures=1),
    "lost and again": Scope(asks=1, crashes=1, duplicates=1),
    "rates": Scope(
        instants=(0, 5, 303, 306),
        margin=1,
        staleness=((300,),),
        max_staleness=300,
        renew_every=5,
        host_rates=(100,),
        replica_rates=(100, 101),
    ),
    "lapses": Scope(allows=(True,), looks_at_once=False),
    "acknowledgements": Scope(instants=(0,), keeps_copy=True, asks=3, kills=1),
    "restarts": Scope(
        staleness=((2, 6),), max_staleness=6, keeps_copy=True, asks=1, kills=1
    ),
    "restarts with a smaller bound between": Scope(
        opening=(*_FIRST, "saves", "follower 0 is killed", "follower 0 starts"),
        instants=(0, 5),
        staleness=((6, 2, 6),),
        max_staleness=6,
        keeps_copy=True,
        kills=2,
    ),
    "stops": Scope(
        opening=(*_FIRST, "saves"), instants=(0, 4), keeps_copy=True, stops=1
    ),
    "stops of those that allow": Scope(
        opening=(*_FIRST, "saves"),
        instants=(0, 4),
        allows=(True,),
        keeps_copy=True,
        stops=1,
    ),
    "stops, from the begin": Scope(instants=(0, 4), keeps_copy=True, stops=1),
    "stops and kills": Scope(
        opening=(*_FIRST, "saves"),
        instants=(0, 4),
        keeps_copy=True,
        stops=1,
        kills=1,
        duplicates=1,
    ),
    "stops, two on a machine": Scope(
        opening=(*_FIRST, "saves", "stops answering"),
        instants=(0,),
        hosts=(0, 0),
        keeps_copy=True,
        asks=3,
        stops=1,
        duplicates=1,
    ),
    "stops and a restore": Scope(
        opening=(*_FIRST, "saves"),
        instants=(0,),
        keeps_copy=True,
        stops=1,
        backups=1,
        restores=1,
    ),
    "reboots": Scope(instants=(0, 4, 8), keeps_copy=True, asks=1, reboots=1),
    "copied directory": Scope(
        opening=(*_FIRST, "saves", "of follower 0 is copied to 1"),
        instants=(0,),
        hosts=(0, 0),
        keeps_copy=True,
        asks=4,
        directory_copies=1,
    ),
    "restore": Scope(asks=1, backups=1, restores=1),
    "restarted server": Scope(instants=(0, 4), asks=1, server_restarts=2),
    "restore, two entries": Scope(
        opening=("backed up", "token 0 is revoked", *_FIRST),
        asks=3,
        revocations=2,
        backups=1,
        restores=1,
    ),
    "restore, asleep": Scope(
        opening=(
            *(*_FIRST, "backed up", "tick", *_SECOND, "replica 0 looks", "put back"),
            *("follower 0 (", "replica 1 receives", "read", "gets"),
        ),
        instants=(0, 2, 6),
        looks_at_once=False,
        asks=4,
        backups=1,
        restores=1,
    ),
    "restore of SQLite": Scope(
        opening=("backed up", *_FIRST),
        instants=(0,),
        hosts=(0, 1),
        is_sqlite=True,
        asks=3,
        backups=1,
        restores=1,
    ),
    "lapsed and restored": Scope(allows=(True,), is_sqlite=True, backups=1, restores=1),
    "two of each": Scope(
        opening=("follower 0 starts", "follower 1 starts"),
        instants=(0,),
        hosts=(0, 1),
        asks=3,
        revocations=2,
    ),
}

#: Where the exhaustive checker must find a broken promise, and which one.
FOUND_IN: Final = {
    Mistake.PAGE_BEFORE_LEASE: ("pauses", 1),
    Mistake.LEASE_IS_A_DATE: ("wall clocks", 3),
    Mistake.WATCH_FROM_ROW_STAMP: ("wall clocks", 1),
    Mistake.TRUST_FIRST_SIGHT: ("pauses", 1),
    Mistake.DELETE_WITHOUT_COMPARE: ("late looks", 1),
    Mistake.RENEWALS_COUNTED: ("late looks", 1),
    Mistake.RENEWALS_GO_ON: ("restore, asleep", 1),
    Mistake.RENEWED_ROW_IS_NOT_MADE: ("pauses", 1),
    Mistake.RELIANCE_PAST_THE_TERM: ("pauses", 1),
    Mistake.RENEWAL_DATED_AFTER_COMMIT: ("pauses", 1),
    Mistake.RENEWAL_NOTED_BEFORE_COMMIT: ("failures", 1),
    Mistake.CLOCK_STOPS_IN_SLEEP: ("naps", 1),
    Mistake.RATES_NOT_ALLOWED_FOR: ("rates", 1),
    Mistake.CONFIRMING_READ_BEFORE_COMMIT: ("pauses", 1),
    Mistake.CONFIRMED_IN_ANY_EPOCH: ("restore", 1),
    Mistake.CONTINUITY_NOT_COMPARED: ("restore", 1),
    Mistake.AGE_FROM_ARRIVAL: ("pauses", 3),
    Mistake.LATE_ANSWER_TAKEN: ("pauses", 3),
    Mistake.ACKNOWLEDGED_BEFORE_COPY: ("acknowledgements", 1),
    Mistake.SAME_ID_AGAIN: ("copied directory", 1),
    Mistake.COPIED_DIRECTORY_TAKEN_OVER: ("copied directory", 1),
    Mistake.AGE_OF_COPIED_DIRECTORY: ("copied directory", 1),
    Mistake.AGE_ACROSS_REBOOT: ("reboots", 3),
    Mistake.NEW_BOUND_FOR_OLD_ANSWER: ("restarts", 1),
    Mistake.AGE_KEEPS_ITS_BOUND: ("restarts with a smaller bound between", 1),
    Mistake.SNAPSHOT_REPLACES: ("restore, two entries", 2),
    Mistake.POSITION_KEPT_ACROSS_EPOCHS: ("restore, two entries", 1),
    Mistake.NO_SETTLING: ("restore", 1),
    Mistake.SETTLED_AT_FIRST_SIGHT: ("restore", 1),
    Mistake.LAPSED_WITHOUT_COMPARE: ("lapses", 1),
    Mistake.LAPSED_STAYS_LAPSED: ("lapses", 1),
    Mistake.WITNESS_IGNORES_FOLLOWERS: ("restore of SQLite", 1),
    Mistake.WITNESS_IGNORES_RETURNS: ("lapsed and restored", 1),
    Mistake.WITNESS_OVERWRITTEN: ("restore of SQLite", 1),
    Mistake.GOODBYE_BEFORE_LAST_ANSWER: ("stops", 1),
    Mistake.GOODBYE_BEFORE_COPY_IS_VOID: ("stops", 1),
    Mistake.SAVED_AFTER_VOID: ("stops", 1),
    Mistake.GOODBYE_FOR_THE_MACHINE: ("stops", 1),
    Mistake.ID_USED_AFTER_GOODBYE: ("stops", 1),
    Mistake.NOBODY_REAPS: ("liveness after a kill", 4),
    Mistake.NEVER_SETTLES: ("liveness after a restart", 4),
}

#: More than 10,000 states each to the end, or to the first broken promise: explored by
#: `make proof`. What concerns pauses, on which all else rests, is explored in every
#: run.
LARGE_SCOPES: Final = frozenset(
    {
        "rates",
        "acknowledgements",
        "copied directory",
        "stops, from the begin",
        "stops and kills",
        "stops, two on a machine",
        "restore, two entries",
        "lapsed and restored",
        "two of each",
        "liveness after a restart",
    }
)
LARGE_MISTAKES: Final = frozenset(
    {
        Mistake.DELETE_WITHOUT_COMPARE,
        Mistake.RENEWALS_COUNTED,
        Mistake.RENEWALS_GO_ON,
        Mistake.RENEWED_ROW_IS_NOT_MADE,
        Mistake.RELIANCE_PAST_THE_TERM,
        Mistake.RENEWAL_DATED_AFTER_COMMIT,
        Mistake.RATES_NOT_ALLOWED_FOR,
        Mistake.ACKNOWLEDGED_BEFORE_COPY,
        Mistake.POSITION_KEPT_ACROSS_EPOCHS,
        Mistake.LAPSED_WITHOUT_COMPARE,
    }
)

#: Small enough to let every world calm down.
LIVENESS: Final = {
    "liveness after a kill": Scope(instants=(0, 2), asks=1, kills=1),
    "liveness after a stop": Scope(instants=(0, 2), asks=1, stops=1, keeps_copy=True),
    "liveness after a restart": Scope(instants=(0, 2), asks=1, server_restarts=1),
    "liveness after a restore": Scope(instants=(0,), asks=1, backups=1, restores=1),
}
