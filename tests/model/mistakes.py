"""Mistakes that a builder of the confirmation protocol could make, by name.

Each is a variant the model can switch on; the exhaustive test must then find a history
that breaks a promise. Mistakes without effect are not listed.
"""

from __future__ import annotations

from enum import Enum


class Mistake(Enum):
    """The value describes the mistake against `docs/revocation.md`."""

    PAGE_BEFORE_LEASE = "the page is read first, then the lease is committed"
    LEASE_IS_A_DATE = "the answer says by the issuer's wall clock how long it holds"
    WATCH_FROM_ROW_STAMP = "the row's own time stamp starts the watch, not first sight"
    TRUST_FIRST_SIGHT = "a row that a replica sees for the first time counts as old"
    DELETE_WITHOUT_COMPARE = "the row is deleted by id, whatever its renewal is now"
    RENEWALS_COUNTED = "renewals are counted from 1, so that a number comes again"
    RENEWALS_GO_ON = (
        "renewals are counted from a random number, which a restore repeats"
    )
    RENEWED_ROW_IS_NOT_MADE = (
        "a renewal updates the row, and makes none when it is gone"
    )
    RELIANCE_PAST_THE_TERM = "a renewal is relied on longer than the watch allows for"
    RENEWAL_DATED_AFTER_COMMIT = "the renewal's age counts from after its commit"
    RENEWAL_NOTED_BEFORE_COMMIT = "a renewal is relied on although its commit failed"
    CLOCK_STOPS_IN_SLEEP = "the issuer's clock stands still while its machine sleeps"
    RATES_NOT_ALLOWED_FOR = "the watch lasts S as it is, by a clock that may be faster"
    CONFIRMING_READ_BEFORE_COMMIT = "followers are read before the revocation commits"
    CONFIRMED_IN_ANY_EPOCH = "the confirming read does not ask whose epoch it is"
    CONTINUITY_NOT_COMPARED = "a confirming read trusts the epoch that is written down"
    AGE_FROM_ARRIVAL = "the age counts from when the answer came"
    LATE_ANSWER_TAKEN = "an answer to a request given up counts for the newest request"
    ACKNOWLEDGED_BEFORE_COPY = "what is applied is acknowledged before it is on disk"
    SAME_ID_AGAIN = "a process goes on under the id it finds in the copy"
    COPIED_DIRECTORY_TAKEN_OVER = "a copied directory's writer counts as ended"
    AGE_OF_COPIED_DIRECTORY = "the age in a copied directory is used on the same boot"
    AGE_ACROSS_REBOOT = "the age in the copy is used after a reboot"
    NEW_BOUND_FOR_OLD_ANSWER = "a restarted process applies its own S to the old answer"
    AGE_KEEPS_ITS_BOUND = (
        "a restarted process leaves a greater S to the age in the copy"
    )
    SNAPSHOT_REPLACES = "a snapshot replaces what was known, instead of adding to it"
    POSITION_KEPT_ACROSS_EPOCHS = "a follower goes on from its position in a new epoch"
    NO_SETTLING = "a new epoch confirms at once"
    SETTLED_AT_FIRST_SIGHT = "the new epoch's watch starts at the start of the replica"
    LAPSED_WITHOUT_COMPARE = "a row is marked lapsed, whatever its renewal is now"
    LAPSED_STAYS_LAPSED = "a renewal does not take the mark away"
    WITNESS_IGNORES_FOLLOWERS = "the witness does not change with a new follower"
    WITNESS_IGNORES_RETURNS = (
        "the witness does not change when a lapsed follower returns"
    )
    WITNESS_OVERWRITTEN = "a new witness is written without comparing the old one"
    GOODBYE_BEFORE_LAST_ANSWER = "goodbye is said by a process that still answers"
    GOODBYE_BEFORE_COPY_IS_VOID = "goodbye is said while the copy still has an age"
    SAVED_AFTER_VOID = "what arrives after the copy is void is saved all the same"
    GOODBYE_FOR_THE_MACHINE = "a goodbye ends every lease of the machine it comes from"
    ID_USED_AFTER_GOODBYE = "a process takes the id of one that has said goodbye"
    NOBODY_REAPS = "no replica ever deletes a row"
    NEVER_SETTLES = "no replica ever settles a new epoch"
