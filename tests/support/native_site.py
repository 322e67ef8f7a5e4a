"""What a writer into gateways trusts, with a clock that a test sets."""

from __future__ import annotations

from typing import Final

from shared.feed import EntryKind, FeedEntry
from tests.support.tokens import AUDIENCE, ISSUER, signing_key
from verifier.check.policy import Policy, TokenPolicy
from verifier.check.trust import key_set
from verifier.native.content import Content, ContentSource, KeepingTrust
from verifier.native.in_force import InForce
from verifier.native.terms import native_terms

EPOCH: Final = "e"


class NativeSite:
    """What is trusted, and what of it is in force in gateways.

    Attributes:
        now: the time, in all clocks; the wall clock is ahead by 1,800,000,000 s.
        terms: of each policy.
    """

    def __init__(self) -> None:
        self.now = 1_000.0
        self.in_force = InForce(lambda: self.now, 0)
        self.trust = KeepingTrust(ISSUER)
        token = TokenPolicy.own(ISSUER, AUDIENCE)
        self.terms = {"default": native_terms(Policy("default", token))}
        self.source = ContentSource(
            self.trust,
            self.in_force,
            lambda: self.terms,
            lambda: self.now,
            lambda: 1_800_000_000 + self.now,
        )
        self.trust.trust_keys(ISSUER, key_set([signing_key().jwk]), 2_000.0)
        self.trust.renew(1_010.0)
        self.reach(1)

    def reach(self, position: int, *sids: str) -> None:
        """Have all entries up to a position, with new ones of these sessions."""
        entries = [
            FeedEntry(position, EntryKind.SID, sid, 0, 2_000_000_000) for sid in sids
        ]
        self.trust.enforce(entries)
        self.in_force.reached(EPOCH, position)

    def take(self) -> Content:
        """Return what a gateway is to have now."""
        return self.source.take()
