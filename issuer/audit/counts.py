"""The tallies of tokens given and of failures, each with its own bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from issuer.acts import Act, Caller
from issuer.audit.tallies import UNKNOWN, AuditTallies, Overflow, TallyLimits
from issuer.foundation import Foundation

#: Tokens given: at most two rows an hour for each key or client and network.
_GRANTS: Final = TallyLimits(3_600, 10_000, Overflow.OLDEST)
#: Failures at a key or client of ours, and failures that name none: written sooner.
_FAILURES: Final = TallyLimits(600, 1_000, Overflow.OTHERS)
_STRANGERS: Final = TallyLimits(600, 200, Overflow.OTHERS)


class AuditCounts:
    """Counts tokens given and failures.

    Args:
        base: gives the database, the clock and the audit.
        find_source: gives the network of an address.

    Attributes:
        tallies: all of them.
        note_grant: records a token given, before it is answered.
    """

    def __init__(self, base: Foundation, find_source: Callable[[str], str]) -> None:
        self.tallies = tuple(
            AuditTallies(base, find_source=find_source, limits=limits)
            for limits in (_GRANTS, _FAILURES, _STRANGERS)
        )
        grants, self._failures, self._strangers = self.tallies
        self.note_grant = grants.note

    async def note_failure(self, act: Act, caller: Caller) -> None:
        """Record a failure.

        Failures that name nothing of ours are counted apart, so that a flood of them
        hides no attack on a client.
        """
        is_strange = act.subject == UNKNOWN
        await (self._strangers if is_strange else self._failures).note(act, caller)
