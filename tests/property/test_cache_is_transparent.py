"""A cache changes no answer, over any history (R27); nor does the fast JSON path."""

from __future__ import annotations

import copy
import json
from collections.abc import Coroutine
from dataclasses import replace
from functools import cache
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
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

from shared.feed import EntryKind, FeedError
from shared.jose.strict_json import StrictJsonError, _read_with_pairs, read_object
from shared.jose.verification_keys import JwksError
from tests.support.clock import FakeClock
from tests.support.decision_ids import without_id
from tests.support.gate_counts import counts_of, forget_counts
from tests.support.gate_dependencies import gate_dependencies
from tests.support.gatehouse_verifier import TOKEN_POLICY, SimulatedVerifier
from tests.support.issuer_simulator import IssuerSimulator
from tests.support.proofs import examples
from tests.support.tokens import TestKey, good_claims, make_token, signing_key
from verifier.check.answers import Answer
from verifier.check.cache import FactCache
from verifier.check.forward_auth import PlainCheckRequest
from verifier.check.gate import Gate
from verifier.check.policy import PolicyBook
from verifier.check.trust import PRUNE_PARTS
from verifier.policies.document import parse_policies
from verifier.sync.fetch import FetchError

pytestmark = pytest.mark.proof

POLICIES = """
[policies.strict]
required_scopes = ["orders:write"]
[policies.stale]
on_stale = "allow"
required_roles = ["clerk"]
[policies.orders]
audience = "orders"
[policies.paths]
on_stale = "allow"
[[policies.paths.rules]]
path = "/public/**"
[[policies.paths.rules]]
path = "/orders/*"
methods = ["POST"]
required_scopes = ["orders:write"]
[[policies.paths.rules]]
path = "/maybe"
optional = true
[policies.claims]
claims = { roles = "clerk" }
max_age = 301
max_auth_age = 602
"""
#: The same names with other meanings, for a reload.
OTHER_POLICIES = """
[policies.strict]
client_ids = ["gatehouse"]
[policies.stale]
any_scopes = ["orders:write", "orders:read"]
[policies.orders]
audience = "orders"
[policies.orders.headers]
X-Auth-Issued = "iat"
[policies.paths]
[[policies.paths.rules]]
path = "/public/**"
public = true
[[policies.paths.rules]]
path = "/**"
required_roles = ["clerk"]
[policies.claims]
[policies.claims.headers]
X-Auth-Issued = "iat"
X-Auth-Audience = "aud"
"""


@cache
def impostor() -> TestKey:
    """Return another key under the first one's name."""
    key = copy.copy(signing_key("third"))
    key.jwk = replace(key.jwk, kid=signing_key("first").kid)
    return key


KEY_SETS = [
    *(["first"], ["first", "second"], ["first", "second"], ["second"]),
    *(["impostor"], ["impostor", "second"], []),
]
#: Most tokens are good ones: a history of refusals shows little.
CHANGES: list[dict[str, Any]] = [
    *({}, {}, {}, {}),
    {"aud": "orders"},
    {"aud": ["api", "orders"]},
    {"scope": "orders:read"},
    {"roles": []},
    {"iss": "https://evil.test"},
    {"gen": "1"},
]
CHECKS = [
    b"/verify/nginx",
    b"/verify/caddy/p/strict",
    b"/verify/nginx/p/stale",
    b"/verify/traefik/p/orders",
    b"/verify/nginx/p/paths",
    b"/verify/envoy/public",
    b"/verify/haproxy/p/claims",
]


def key_named(name: str) -> TestKey:
    return impostor() if name == "impostor" else signing_key(name)


@cache
def mint(key_name: str, claims: str) -> bytes:
    """Return the token; signing the same one again and again would cost most."""
    return make_token(orjson.loads(claims), key=key_named(key_name))


def run(step: Coroutine[Any, Any, None]) -> None:
    """Run a step to its end; the simulator never really waits."""
    try:
        while True:
            step.send(None)
    except (StopIteration, FetchError, FeedError, JwksError):
        return


class CachedAndUncached(RuleBasedStateMachine):
    """A gate with a tiny cache beside one that has forgotten everything each time."""

    tokens = Bundle("tokens")

    @initialize(target=tokens, entries=st.sampled_from([2, 4, 100]))
    def start(self, entries: int) -> MultipleResults[bytes]:
        self.clock = FakeClock()
        self.issuer = IssuerSimulator(self.clock)
        self.entries = entries
        self.verifier = SimulatedVerifier(
            self.clock,
            self.issuer,
            policies=POLICIES,
            cache_entries=entries,
            keys_max_age=1_000,
        )
        self.fetch_all()
        made = [self.make_token("first", number, 1, False, {}) for number in range(4)]
        return multiple(*made)

    def fetch_all(self) -> None:
        run(self.verifier.keys.step())
        run(self.verifier.feed.step())

    @rule(
        seconds=st.sampled_from([0.5, 1, 4, 5, 6, 29, 30, 300, 600]),
        fetches=st.booleans(),
    )
    def time_passes(self, seconds: float, fetches: bool) -> None:
        self.clock.advance(seconds)
        if fetches:
            self.fetch_all()

    @rule(action=st.sampled_from(["down", "up", "restore", "sweep", "keys", "feed"]))
    def something_happens(self, action: str) -> None:
        if action == "restore":
            self.issuer.restore_backup(self.issuer.head // 2)
        elif action == "sweep":
            for _ in range(PRUNE_PARTS // 4):
                self.verifier.trust.prune(self.clock.now())
        elif action == "keys":
            run(self.verifier.keys.step())
        elif action == "feed":
            run(self.verifier.feed.step())
        else:
            self.issuer.is_down = action == "down"

    @rule(is_other=st.booleans())
    def the_policies_are_read_again(self, is_other: bool) -> None:
        """R65: facts that are kept must not carry what the old policies said."""
        text = OTHER_POLICIES if is_other else POLICIES
        self.verifier.gate.adopt(PolicyBook(parse_policies(text, TOKEN_POLICY)))

    @rule(names=st.sampled_from(KEY_SETS), fetches=st.booleans())
    def the_keys_change(self, names: list[str], fetches: bool) -> None:
        self.issuer.keys = [key_named(name) for name in names]
        if fetches:
            self.fetch_all()

    @rule(
        kind=st.sampled_from(EntryKind),
        number=st.integers(0, 4),
        generation=st.integers(0, 3),
        fetches=st.booleans(),
    )
    def something_is_revoked(
        self, kind: EntryKind, number: int, generation: int, fetches: bool
    ) -> None:
        keys = {
            EntryKind.JTI: f"jti-{number}",
            EntryKind.SID: f"sid-{number}",
            EntryKind.USER: f"sub-{number}",
            EntryKind.CLIENT: f"sub-{number}",
            EntryKind.KID: signing_key("second").kid,
        }
        self.issuer.revoke(kind, keys[kind], generation)
        if fetches:
            self.fetch_all()

    @rule(
        target=tokens,
        key_name=st.sampled_from(["first", "first", "second", "impostor"]),
        number=st.integers(0, 4),
        gen=st.integers(0, 3),
        is_program=st.booleans(),
        change=st.sampled_from(CHANGES),
    )
    def a_token_is_made(
        self,
        key_name: str,
        number: int,
        gen: int,
        is_program: bool,
        change: dict[str, Any],
    ) -> bytes:
        return self.make_token(key_name, number, gen, is_program, change)

    def make_token(
        self,
        key_name: str,
        number: int,
        gen: int,
        is_program: bool,
        change: dict[str, Any],
    ) -> bytes:
        sub = f"sub-{number}"
        claims = good_claims(
            # a few moments only, so that one token is met again
            self.clock.now() // 300 * 300,
            sub=sub,
            jti=f"jti-{number}",
            sid=f"sid-{number}",
            client_id=sub if is_program else "gatehouse",
        )
        claims |= {"gen": gen} | change
        return mint(key_name, orjson.dumps(claims).decode())

    @rule(token=tokens, check=st.sampled_from(CHECKS), how=st.integers(0, 2))
    def a_spoilt_token_is_refused_alike(
        self, token: bytes, check: bytes, how: int
    ) -> None:
        content, _, _ = token.rpartition(b".")
        bad = [content + b"." + b"A" * 342, token + b"=", token[:-40]][how]
        self.answer_alike(bad, check, None, b"GET")

    @rule(token=tokens, check=st.sampled_from(CHECKS))
    def a_request_is_answered_alike(self, token: bytes, check: bytes) -> None:
        self.answer_alike(token, check, None, b"GET")

    @rule(token=tokens, checks=st.permutations(CHECKS))
    def requests_in_any_order_are(self, token: bytes, checks: list[bytes]) -> None:
        for check in checks[:4]:
            self.answer_alike(token, check, None, b"GET")

    @rule(
        token=tokens,
        uri=st.sampled_from(
            [b"/public/a", b"/orders/1", b"/x", b"/public/../x", b"/maybe"]
        ),
        method=st.sampled_from([b"GET", b"POST"]),
    )
    def requests_with_a_path_are(self, token: bytes, uri: bytes, method: bytes) -> None:
        self.answer_alike(token, b"/verify/nginx/p/paths", uri, method)
        self.answer_alike(token, b"/verify/envoy/p/paths" + uri, None, method)

    def answer_alike(
        self, token: bytes, check: bytes, uri: bytes | None, method: bytes
    ) -> None:
        headers = [(b"authorization", b"Bearer " + token)]
        if uri is not None:
            headers += [(b"x-original-method", method), (b"x-original-uri", uri)]
        request = PlainCheckRequest(method, check, headers, peer_is_trusted=True)
        uncached = self.new_gate()
        expected = without_id(uncached.answer(request))
        (reason,) = counts_of(uncached)
        assert reason != "internal_error"
        # the second time a fact is in the cache for certain
        for _ in range(2):
            forget_counts(self.verifier.gate)
            assert without_id(self.verifier.gate.answer(request)) == expected
            assert list(counts_of(self.verifier.gate)) == [reason]

    def new_gate(self) -> Gate:
        dependencies = gate_dependencies(
            self.verifier.trust, self.clock.now, self.clock.monotonic
        )
        return Gate(
            self.verifier.gate.policies,
            dependencies,
            lambda: FactCache(max_entries=2, max_bytes=1 << 20),
        )

    @invariant()
    def the_cache_is_bounded(self) -> None:
        for facts in self.verifier.gate.caches.values():
            assert len(facts) <= self.entries


TestCacheIsTransparent = CachedAndUncached.TestCase
TestCacheIsTransparent.settings = settings(
    deadline=None, max_examples=examples(120), stateful_step_count=40
)


# --- the fast JSON path --------------------------------------------------------------

NUMBERS = st.one_of(
    st.integers(), st.floats(allow_nan=False), st.integers(-(1 << 70), 1 << 70)
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=4), inner)
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=4), JSON, max_size=5)


def read_slowly(data: bytes) -> str:
    """Return the value of the slow parser, with types; or that it refuses."""
    try:
        return repr(_read_with_pairs(data))
    except StrictJsonError:
        return "refused"


@settings(deadline=None, max_examples=examples(120))
@given(
    OBJECTS,
    st.sampled_from(
        [
            {"separators": (",", ":"), "ensure_ascii": False},
            {"separators": (",", ":")},
            {"indent": 2},
            {},
        ]
    ),
)
def test_both_readers_read_every_written_token_alike(
    value: dict[str, Any], spelling: dict[str, Any]
) -> None:
    data = json.dumps(value, **spelling).encode()
    try:
        read = repr(read_object(data))
    except StrictJsonError:
        assert read_slowly(data) == "refused"
        return
    assert read == read_slowly(data)


@settings(deadline=None, max_examples=examples(120))
@given(OBJECTS, st.data())
def test_a_member_written_twice_is_refused_by_both(
    value: dict[str, Any], data: st.DataObject
) -> None:
    text = (
        orjson.dumps(value | {"exp": 1}, default=str) if _fits(value) else b'{"exp":1}'
    )
    name = data.draw(st.sampled_from([b'"exp"', b'"\\u0065xp"', b'"e\\u0078p"']))
    twice = text[:-1] + b"," + name + b":2}"
    assert read_slowly(twice) == "refused"
    try:
        read_object(twice)
    except StrictJsonError:
        return
    raise AssertionError("a duplicate was read")


def _fits(value: dict[str, Any]) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


@settings(deadline=None, max_examples=examples(60))
@given(
    st.sampled_from([b"/verify/nginx", b"/verify/nginx/p/strict"]),
    st.fixed_dictionaries(
        {},
        optional={
            "sub": st.text(max_size=5),
            "scope": st.sampled_from(["orders:write", "a  b", ""]),
            "gen": st.sampled_from([0, 1, True, "1", 1.0]),
            "exp": st.sampled_from([0, 1.5, 2_000_000_000, "x", 1e300]),
        },
    ),
)
def test_a_gate_answers_alike_however_the_claims_are_written(
    target: bytes, changes: dict[str, Any]
) -> None:
    clock = FakeClock()
    verifier = SimulatedVerifier(clock, IssuerSimulator(clock), policies=POLICIES)
    run(verifier.keys.step())
    run(verifier.feed.step())
    claims = good_claims(clock.now()) | changes
    answers: set[tuple[Answer, str]] = set()
    for payload in (orjson.dumps(claims), json.dumps(claims, indent=1).encode()):
        answer = verifier.check(make_token(payload), target=target)
        answers.add((without_id(answer), verifier.last_reason()))
    assert len(answers) == 1
