"""The list of checks: total, and in the order in which requests are refused (R66)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import orjson
import pytest

from shared.claims import MAX_TOKEN_BYTES
from shared.feed import EntryKind, FeedEntry
from tests.support.gatehouse_verifier import broken_key_set
from tests.support.tokens import AUDIENCE, ISSUER, good_claims, make_token, signing_key
from tests.support.trusting import trust_in
from verifier.check.claims import ClaimNames
from verifier.check.decision import Allowed, CheckPaths, Refused, Times, decide
from verifier.check.denials import DenyReason
from verifier.check.forward_auth import PlainCheckRequest
from verifier.check.policy import IssuerTerms, Policy, PolicyBook, TokenPolicy
from verifier.check.trust import Trust, TrustSnapshot, key_set
from verifier.policies.document import parse_policies
from verifier.policies.explanation import (
    CHECK_OF,
    ORDERS,
    PRESUMED,
    Check,
    CheckOutcome,
    CheckResult,
    list_checks,
    pack_checks,
    unpack_checks,
)

NOW = 1_795_000_000
ALL_ASKED = """
required_scopes = ["p"]
any_scopes = ["q", "r"]
required_roles = ["clerk", "chief"]
client_ids = ["app", "web"]
claims = { tenant = ["acme", "other"] }
max_age = 1000
max_auth_age = 1000
[[policies.{0}.rules]]
path = "/orders/*"
required_scopes = ["w"]
any_scopes = ["x", "y"]
required_roles = ["clerk"]
client_ids = ["app"]
claims = {{ tenant = "acme" }}
max_age = 300
max_auth_age = 300
"""


def policy(name: str, first: str = "") -> str:
    head, rules = ALL_ASKED.replace("{ tenant = [", "{{ tenant = [").split("[[", 1)
    head = head.replace('"other"] }', '"other"] }}')
    return f"[policies.{name}]\n{first}" + (head + "[[" + rules).format(name)


POLICY_FILE = (
    policy("token-first")
    + policy("request-first", 'preflight = "allow"\n')
    + policy("shadow", 'preflight = "allow"\nmode = "shadow"\n')
    + policy("shadow-first", 'mode = "shadow"\n')
    + """
[policies.open]
preflight = "allow"
[[policies.open.rules]]
path = "/public"
public = true
[[policies.open.rules]]
path = "/maybe"
optional = true
[[policies.open.rules]]
path = "/**"
"""
)
OTHER = IssuerTerms("https://other.test", "theirs", claims=ClaimNames())
OWN = TokenPolicy.own(ISSUER, AUDIENCE)
BOOK = PolicyBook(parse_policies(POLICY_FILE, OWN))


def of_several(policy: Policy) -> Policy:
    issuers = (*policy.token.issuers, OTHER)
    return replace(policy, token=replace(policy.token, issuers=issuers))


BOOK_OF_SEVERAL = PolicyBook(
    {name: of_several(policy) for name, policy in BOOK.policies.items()}
)
POLICIES = ("token-first", "request-first", "shadow", "shadow-first")
#: What shadow mode lets pass (R65).
SHADOWED = {
    *("forwarded_missing", "forwarded_malformed", "path_ambiguous", "rule_missing"),
    *("scope_insufficient", "role_missing", "client_not_allowed", "claim_mismatch"),
    *("token_too_old", "authentication_too_old"),
}


@dataclass
class World:
    """A request that passes, and what it is decided by; faults change it."""

    policy: str
    book: PolicyBook = BOOK
    dialect: str = "nginx"
    peer_is_trusted: bool = True
    boottime: float = 1.0
    method: bytes = b"GET"
    uri: bytes = b"/orders/7"
    scheme: bytes = b"Bearer "
    has_credential: bool = True
    before: list[tuple[bytes, bytes]] = field(default_factory=list)
    claims: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    key: str = "first"
    header_bytes: bytes | None = None
    tail: bytes = b""

    def __post_init__(self) -> None:
        self.claims = good_claims(
            NOW,
            scope="p q w x",
            roles=["clerk"],
            client_id="app",
            sub="app",
            tenant="acme",
            gen=1,
        )
        self.header = {"alg": "RS256", "typ": "at+jwt", "kid": signing_key().kid}

    def decide(self) -> Allowed | Refused:
        headers = [*self.before, (b"x-original-method", self.method)]
        headers.append((b"x-original-uri", self.uri))
        if self.has_credential:
            header = self.header_bytes or orjson.dumps(self.header)
            token = mint(orjson.dumps(self.claims), header, self.key) + self.tail
            headers.append((b"authorization", self.scheme + token))
        target = f"/verify/{self.dialect}/p/{self.policy}".encode()
        request = PlainCheckRequest(b"GET", target, headers, self.peer_is_trusted)
        return decide(
            request, trust(), CheckPaths(self.book), Times(NOW, self.boottime)
        )


@cache
def mint(claims: bytes, header: bytes, key: str) -> bytes:
    return make_token(claims, header=header, key=signing_key(key))


@cache
def trust() -> TrustSnapshot:
    """The keys count until 20, the revocations until 10, in boot-time seconds."""
    trust = Trust(ISSUER)
    keys = [signing_key().jwk, signing_key("second").jwk]
    trust.trust_keys(ISSUER, key_set(keys), 20)
    revoked = [
        (EntryKind.JTI, "revoked"),
        (EntryKind.SID, "revoked"),
        (EntryKind.USER, "gone"),
        *[(EntryKind.CLIENT, client) for client in ("app", "web", "evil")],
        (EntryKind.KID, signing_key("second").kid),
    ]
    trust.enforce(
        FeedEntry(seq, kind, key, 9 if kind is EntryKind.USER else 1, NOW + 600)
        for seq, (kind, key) in enumerate(revoked, 1)
    )
    trust.renew(10)
    return trust.snapshot


def claim(name: str, value: Any) -> Callable[[World], None]:
    def fault(world: World) -> None:
        world.claims[name] = value

    return fault


def attribute(name: str, value: Any) -> Callable[[World], None]:
    return lambda world: setattr(world, name, value)


def header(name: str, value: Any) -> Callable[[World], None]:
    def fault(world: World) -> None:
        world.header[name] = value

    return fault


def revoked_kid(world: World) -> None:
    world.key, world.header["kid"] = "second", signing_key("second").kid


def revoked_client(world: World) -> None:
    world.claims |= {"gen": 0, "sub": world.claims["client_id"]}


def repeated(name: bytes) -> Callable[[World], None]:
    return lambda world: world.before.append((name, b"x"))


def second_credential(world: World) -> None:
    world.before.insert(0, (b"authorization", b"x"))


#: Faults, each with its reason and its check, in the order of the checks.
FAULTS: list[tuple[str, Check, Callable[[World], None]]] = [
    ("route_unknown", Check.CHECK_PATH, attribute("dialect", "pigeon")),
    ("policy_unknown", Check.POLICY, attribute("policy", "none")),
    ("peer_untrusted", Check.PEER, attribute("peer_is_trusted", False)),
    ("forwarded_repeated", Check.FORWARDED, repeated(b"x_original_uri")),
    ("no_keys", Check.KEYS_AGE, attribute("boottime", 21.0)),
    ("stale", Check.REVOCATIONS_AGE, attribute("boottime", 11.0)),
    ("credential_repeated", Check.HEADERS, second_credential),
    ("credential_missing", Check.HEADERS, attribute("has_credential", False)),
    ("credential_malformed", Check.HEADERS, attribute("scheme", b"Basic ")),
    ("token_too_large", Check.TOKEN_FORM, claim("x", "x" * MAX_TOKEN_BYTES)),
    ("token_malformed", Check.TOKEN_FORM, attribute("tail", b".x")),
    ("header_malformed", Check.TOKEN_FORM, attribute("header_bytes", b"{")),
    ("alg_not_allowed", Check.TOKEN_HEADER, header("alg", "none")),
    ("header_forbidden", Check.TOKEN_HEADER, header("jku", "https://x")),
    ("typ_not_allowed", Check.TOKEN_HEADER, header("typ", "JWT")),
    ("kid_missing", Check.TOKEN_KEY, header("kid", None)),
    ("kid_unknown", Check.TOKEN_KEY, header("kid", "x")),
    ("signature_invalid", Check.TOKEN_SIGNATURE, attribute("key", "third")),
    ("claim_missing", Check.TOKEN_CLAIMS, lambda world: world.claims.pop("jti")),
    ("claims_malformed", Check.TOKEN_CLAIMS, claim("gen", "1")),
    ("issuer_mismatch", Check.TOKEN_ISSUER, claim("iss", "https://evil.test")),
    ("audience_mismatch", Check.TOKEN_AUDIENCE, claim("aud", "other")),
    ("lifetime_too_long", Check.TOKEN_LIFETIME, claim("iat", NOW - 100_000)),
    ("expired", Check.TOKEN_TIME, claim("exp", NOW - 100)),
    ("not_yet_valid", Check.TOKEN_TIME, claim("nbf", NOW + 100)),
    ("revoked_jti", Check.REVOCATION, claim("jti", "revoked")),
    ("revoked_sid", Check.REVOCATION, claim("sid", "revoked")),
    ("revoked_user", Check.REVOCATION, claim("sub", "gone")),
    ("revoked_client", Check.REVOCATION, revoked_client),
    ("revoked_kid", Check.REVOCATION, revoked_kid),
    ("forwarded_missing", Check.REQUEST, attribute("method", b"")),
    ("forwarded_malformed", Check.REQUEST, attribute("method", b"get")),
    ("path_ambiguous", Check.REQUEST, attribute("uri", b"/orders/..")),
    ("rule_missing", Check.RULE, attribute("uri", b"/elsewhere")),
    ("scope_insufficient", Check.POLICY_SCOPES, claim("scope", "q w x")),
    ("scope_insufficient", Check.POLICY_SCOPES, claim("scope", "p w x")),
    ("role_missing", Check.POLICY_ROLES, claim("roles", [])),
    ("client_not_allowed", Check.POLICY_CLIENT_IDS, claim("client_id", "evil")),
    ("claim_mismatch", Check.POLICY_CLAIMS, claim("tenant", "evil")),
    ("token_too_old", Check.POLICY_MAX_AGE, claim("iat", NOW - 1_100)),
    ("authentication_too_old", Check.POLICY_MAX_AUTH_AGE, claim("auth_time", 0)),
    ("scope_insufficient", Check.RULE_SCOPES, claim("scope", "p q x")),
    ("scope_insufficient", Check.RULE_SCOPES, claim("scope", "p q w")),
    ("role_missing", Check.RULE_ROLES, claim("roles", ["chief"])),
    ("client_not_allowed", Check.RULE_CLIENT_IDS, claim("client_id", "web")),
    ("claim_mismatch", Check.RULE_CLAIMS, claim("tenant", "other")),
    ("token_too_old", Check.RULE_MAX_AGE, claim("iat", NOW - 400)),
    (
        "authentication_too_old",
        Check.RULE_MAX_AUTH_AGE,
        claim("auth_time", NOW - 400),
    ),
]
#: No request causes these.
NOT_BY_A_REQUEST = {"overloaded", "internal_error"}
#: Only without a policy's name in the check path.
BY_PATH = {"policy_unnamed"}


def order_of(policy: str, book: PolicyBook = BOOK) -> tuple[Check, ...]:
    places = {"token-first": 0, "request-first": 1, "shadow": 2, "shadow-first": 0}
    return ORDERS[places[policy] + (3 if book is BOOK_OF_SEVERAL else 0)]


def check_in(policy: str, check: Check) -> Check:
    """Where the token is read first, forwarded headers are read together with it."""
    return check if check in order_of(policy) else Check.HEADERS


def pairs(policy: str, book: PolicyBook) -> Iterator[tuple[Any, Any]]:
    """Give pairs of faults of two checks, first the one that is refused."""
    order = order_of(policy, book)
    for one, other in itertools.combinations(FAULTS, 2):
        places = [order.index(check_in(policy, fault[1])) for fault in (one, other)]
        if places[0] != places[1]:
            yield (one, other) if places[0] < places[1] else (other, one)


def require_listed(
    results: list[CheckResult], check: Check, outcome: CheckOutcome, reason: str
) -> None:
    """Require that all before the check have passed, and none behind was reached."""
    place = [result.check for result in results].index(check)
    assert results[place] == (check, outcome, reason)
    assert {r.outcome for r in results[:place]} <= {CheckOutcome.PASSED}
    assert {r.outcome for r in results[place + 1 :]} <= {CheckOutcome.NOT_REACHED}


def test_every_reason_has_a_check_and_every_check_a_reason() -> None:
    assert set(CHECK_OF) == set(DenyReason)
    found = {check for _, check, _ in FAULTS} | {Check.GATE}
    for order in ORDERS:
        assert len(set(order)) == len(order)
        assert set(order) | {Check.FORWARDED} == set(Check)
    assert found == set(Check)
    reasons = {reason for reason, _, _ in FAULTS}
    assert reasons | NOT_BY_A_REQUEST | BY_PATH == {reason.value for reason in CHECK_OF}


every_book = pytest.mark.parametrize(
    "book", [BOOK, BOOK_OF_SEVERAL], ids=["one-issuer", "several"]
)


@every_book
@pytest.mark.parametrize("policy", POLICIES)
def test_each_fault_is_refused_by_its_check(policy: str, book: PolicyBook) -> None:
    for reason, check, fault in FAULTS:
        world = World(policy, book)
        fault(world)
        require_refused(world, policy, reason, check)


def require_refused(world: World, policy: str, reason: str, check: Check) -> None:
    """Require the reason, and the list that goes with it."""
    outcome = world.decide()
    known = check in (Check.CHECK_PATH, Check.POLICY)
    check = check if known else check_in(policy, check)
    word = CheckOutcome.REFUSED
    if "shadow" in policy and reason in SHADOWED:
        assert isinstance(outcome, Allowed), (reason, outcome)
        found, word = outcome.shadowed, CheckOutcome.WOULD_REFUSE
    else:
        assert isinstance(outcome, Refused), (reason, outcome)
        found = outcome.reason
    assert found == reason, world
    results = list_checks(outcome, NOW)
    require_listed(results, check, word, reason)
    assert unpack_checks(pack_checks(outcome, NOW), reason) == results


@every_book
@pytest.mark.parametrize("policy", POLICIES)
def test_of_two_faults_the_check_that_is_listed_first_refuses(
    policy: str, book: PolicyBook
) -> None:
    """The order of the list is the order of `decide`, for every pair of checks."""
    tried = 0
    for (reason, check, fault), (_, _, later) in pairs(policy, book):
        world = World(policy, book)
        # The first one last: where both change the same thing, it must be there.
        later(world)
        fault(world)
        require_refused(world, policy, reason, check)
        tried += 1
    assert tried > 900


@every_book
@pytest.mark.parametrize("policy", POLICIES)
def test_a_good_request_has_passed_every_check(policy: str, book: PolicyBook) -> None:
    outcome = World(policy, book).decide()
    assert isinstance(outcome, Allowed)
    results = list_checks(outcome, NOW)
    assert [result.check for result in results] == list(order_of(policy, book))
    assert {result.outcome for result in results} == {CheckOutcome.PASSED}
    presumed = list_checks(outcome, NOW, PRESUMED)
    unsure = {r.check for r in presumed if r.outcome is CheckOutcome.NOT_CHECKED}
    assert unsure == {Check.GATE, Check.PEER}


def needed(outcome: Allowed | Refused) -> set[Check]:
    assert isinstance(outcome, Allowed)
    results = list_checks(outcome, NOW)
    assert unpack_checks(pack_checks(outcome, NOW), "") == results
    return {r.check for r in results if r.outcome is CheckOutcome.PASSED}


ARRIVAL = {Check.GATE, Check.CHECK_PATH, Check.POLICY, Check.PEER}


def test_what_a_policy_does_not_ask_is_not_needed() -> None:
    everything = set(ORDERS[0])
    asked = {c for c in Check if c.startswith(("policy_", "rule_"))}
    token = everything - asked - {Check.REQUEST, Check.RULE}
    assert needed(World("default").decide()) == token
    match = {Check.FORWARDED, Check.REQUEST, Check.RULE}
    assert needed(World("open").decide()) == token | match
    world = World("open", uri=b"/maybe")
    assert needed(world.decide()) == token | match


def test_an_open_request_needs_no_check_of_a_token() -> None:
    """R61."""
    match = {Check.FORWARDED, Check.REQUEST, Check.RULE}
    world = World("open", uri=b"/public", boottime=99.0)
    assert needed(world.decide()) == ARRIVAL | match
    world = World("open", uri=b"/maybe", has_credential=False)
    assert needed(world.decide()) == ARRIVAL | match


@pytest.mark.parametrize("policy", ["open", "shadow"])
def test_a_preflight_needs_no_rule(policy: str) -> None:
    world = World(policy, method=b"OPTIONS", has_credential=False)
    world.before = [(b"origin", b"x"), (b"access-control-request-method", b"PUT")]
    assert needed(world.decide()) == ARRIVAL | {Check.FORWARDED}


def test_the_gate_itself_comes_first() -> None:
    """What it found before a fault of its own is not known."""
    overloaded = Refused(DenyReason.OVERLOADED)
    require_listed(
        list_checks(overloaded, NOW), Check.GATE, CheckOutcome.REFUSED, "overloaded"
    )
    trust = trust_in(broken_key_set(KeyError()), until=2)
    token = make_token(good_claims(NOW))
    request = PlainCheckRequest(
        b"GET", b"/verify/nginx", [(b"authorization", b"Bearer " + token)], True
    )
    outcome = decide(request, trust, CheckPaths(BOOK), Times(NOW, 1))
    require_listed(
        list_checks(outcome, NOW), Check.GATE, CheckOutcome.REFUSED, "internal_error"
    )


def test_a_policy_that_must_be_named_is_refused_by_its_check() -> None:
    request = PlainCheckRequest(b"GET", b"/verify/envoy/x", [], False)
    outcome = decide(request, trust(), CheckPaths(BOOK), Times(NOW, 1))
    require_listed(
        list_checks(outcome, NOW), Check.POLICY, CheckOutcome.REFUSED, "policy_unnamed"
    )
