"""A cache changes no answer of a policy that accepts several issuers (R27, R67)."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache
from typing import Any

import orjson
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)

from shared.feed import EntryKind, FeedEntry
from tests.support.jose_keys import JoseKey, jose_key
from tests.support.proofs import examples
from tests.support.tokens import AUDIENCE, ISSUER, good_claims
from verifier.check.cache import FactCache
from verifier.check.claims import ClaimNames
from verifier.check.decision import Allowed, CheckPaths, Facts, Times, decide
from verifier.check.denials import DenyReason
from verifier.check.forward_auth import PlainCheckRequest
from verifier.check.policy import IssuerTerms, Policy, PolicyBook, TokenPolicy
from verifier.check.trust import KeySet, Trust, keys_by_id

pytestmark = pytest.mark.proof

START = 1_795_000_000
SHOP, BANK = "https://shop.test", "https://bank.test"
ISSUERS = (ISSUER, SHOP, BANK)
NAMES = ClaimNames(client=("azp",), roles=("realm_access", "roles"))
#: Both have an algorithm, an audience and key ids of the other, and of ours.
SHOP_TERMS = IssuerTerms(
    *(SHOP, AUDIENCE, "shop", frozenset({"RS256", "ES256"})),
    *(frozenset({"jwt"}), frozenset({"sub", "exp", "iat"}), 600, NAMES),
)
BANK_TERMS = replace(SHOP_TERMS, issuer=BANK, name="bank", max_lifetime=3_600)
OURS = IssuerTerms(ISSUER, AUDIENCE)
POLICIES = {
    "ours": TokenPolicy((OURS,)),
    "shop": TokenPolicy((SHOP_TERMS,)),
    "both": TokenPolicy((OURS, SHOP_TERMS)),
    "all": TokenPolicy((OURS, SHOP_TERMS, BANK_TERMS)),
    "renamed": TokenPolicy((OURS, replace(SHOP_TERMS, claims=ClaimNames()))),
}
KEYS = [
    jose_key("RS256"),
    jose_key("RS256", "theirs"),
    jose_key("ES256"),
    jose_key("ES256", "theirs"),
]
#: By whether it is our issuer.
TYPES = ("JWT", "at+jwt")
FIRST_KEYS = dict(zip(ISSUERS, KEYS, strict=False))
KEY_LISTS = [[], *([key] for key in KEYS), [KEYS[0], KEYS[2]]]


@cache
def mint(key: JoseKey, kid: str, typ: str, claims: bytes) -> bytes:
    """Return a token; making one costs a hundred checks of it."""
    return key.token(claims, kid=kid, typ=typ)


def key_set(keys: list[JoseKey], kid: str) -> KeySet:
    """Return the keys, of which the first one has the id."""
    named = [key.public() for key in keys]
    return keys_by_id([replace(named[0], kid=kid), *named[1:]] if named else [])


class SeveralIssuers(RuleBasedStateMachine):
    """The decisions with one cache for each token policy, and without."""

    tokens = Bundle("tokens")
    first: tuple[bytes, ...] | list[bytes] = ()

    @initialize(target=tokens)
    def start(self) -> MultipleResults[bytes]:
        self.time = 0.0
        self.trust = Trust(ISSUER)
        self.trust.follow(ISSUERS)
        for issuer in ISSUERS:
            self.keys_are_fetched(issuer, [FIRST_KEYS[issuer]], 40)
        self.trust.renew(60.0)
        self.facts: dict[TokenPolicy, Facts] = {
            policy: FactCache(max_entries=8, max_bytes=1 << 20)
            for policy in POLICIES.values()
        }
        self.first = [
            self.a_token_is_made(issuer, None, None, "alice", 600, is_spoilt)
            for issuer in ISSUERS
            for is_spoilt in (False, True)
        ]
        return multiple(*self.first)

    @rule(seconds=st.sampled_from([1, 6, 36]))
    def time_passes(self, seconds: int) -> None:
        self.time += seconds

    @rule(
        issuer=st.sampled_from(ISSUERS),
        keys=st.sampled_from(KEY_LISTS),
        seconds=st.sampled_from([5, 40, 40]),
    )
    def keys_are_fetched(self, issuer: str, keys: list[JoseKey], seconds: int) -> None:
        if issuer in self.trust.snapshot.issuers:
            found = key_set(keys, "one")
            self.trust.trust_keys(issuer, found, self.time + seconds)

    @rule(followed=st.sampled_from([ISSUERS, [SHOP], []]))
    def other_issuers_are_followed(self, followed: list[str]) -> None:
        self.trust.follow(followed)

    @rule(seconds=st.sampled_from([0, 40]))
    def the_feed_is_read(self, seconds: int) -> None:
        self.trust.renew(self.time + seconds)

    @rule(
        kind=st.sampled_from([EntryKind.SID, EntryKind.USER, EntryKind.JTI]),
        who=st.sampled_from(["alice", "bob"]),
    )
    def something_of_ours_is_revoked(self, kind: EntryKind, who: str) -> None:
        self.trust.enforce([FeedEntry(1, kind, who, 1, START + 10_000)])

    @rule(
        target=tokens,
        issuer=st.sampled_from([*ISSUERS, *ISSUERS, "https://shop.test/"]),
        key=st.sampled_from([None, None, *KEYS]),
        is_ours=st.sampled_from([None, None, False, True]),
        who=st.sampled_from(["alice", "bob"]),
        exp=st.sampled_from([600, 600, 601]),
        is_spoilt=st.booleans(),
    )
    def a_token_is_made(
        self,
        issuer: str,
        key: JoseKey | None,
        is_ours: bool | None,
        who: str,
        exp: int,
        is_spoilt: bool,
    ) -> bytes:
        """Most are of their issuer's first key and type."""
        key = key or FIRST_KEYS.get(issuer, KEYS[0])
        typ = TYPES[issuer == ISSUER if is_ours is None else is_ours]
        claims: dict[str, Any] = good_claims(
            START, iss=issuer, sub=who, sid=who, jti=who, exp=START + exp, azp="a"
        )
        token = mint(key, "one", typ, orjson.dumps(claims))
        return token[:-8] + b"AAAAAAAA" if is_spoilt else token

    @rule(
        asked=st.lists(tokens, min_size=1, max_size=4),
        policies=st.permutations(list(POLICIES)),
    )
    def tokens_are_answered_alike(
        self, asked: list[bytes], policies: list[str]
    ) -> None:
        for token, name in itertools.product(asked, policies[:3]):
            # The second time a fact is in the cache for certain.
            for _ in range(2):
                self.answer_alike(name, token)

    @invariant()
    def every_change_of_the_world_is_noticed(self) -> None:
        for token in self.first:
            self.answer_alike("all", token)

    def answer_alike(self, name: str, token: bytes) -> None:
        cached = self.decide(name, token, self.facts)
        assert cached == self.decide(name, token, None)

    def decide(
        self, name: str, token: bytes, facts: dict[TokenPolicy, Facts] | None
    ) -> object:
        policy = POLICIES[name]
        book = PolicyBook({name: Policy(name, policy)})
        request = PlainCheckRequest(
            b"GET",
            b"/verify/nginx/p/" + name.encode(),
            [(b"authorization", b"Bearer " + token)],
            peer_is_trusted=True,
        )
        times = Times(START + int(self.time), self.time)
        outcome = decide(request, self.trust.snapshot, CheckPaths(book, facts), times)
        if isinstance(outcome, Allowed):
            assert outcome.claims is not None
            assert outcome.claims.iss in {terms.issuer for terms in policy.issuers}
            return outcome.claims, outcome.answer, outcome.kid
        assert outcome.reason is not DenyReason.INTERNAL_ERROR
        return outcome.reason


TestSeveralIssuers = SeveralIssuers.TestCase
TestSeveralIssuers.settings = settings(
    deadline=None, max_examples=examples(40), stateful_step_count=30
)
