"""Where Envoy's own check is weaker than ours, by requirement (docs/gateways.md).

Each list is compared as a whole: a weakness that comes or goes changes a test. R14, R15
and R18's `iss`, `aud` and `exp` must not be among them, or the mode is unavailable.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

import orjson
import pytest

from shared.jose import base64url
from shared.jose.strict_json import StrictJsonError, read_object
from shared.jose.verification_keys import JwksError
from tests.conformance.conftest import corpus
from tests.conformance.driver import _read_keys
from tests.conformance.test_corpus import token_of
from tests.support.fixed_key import fixed_key
from tests.support.mutants_now import mutants_now
from tests.support.native_envoy import NativeEnvoy, native_envoy, usual_terms
from tests.support.proofs import examples
from tests.support.tokens import AUDIENCE, ISSUER, good_claims, make_token
from tests.support.trusting import trust_in
from verifier.check.denials import Denied, DenyReason
from verifier.check.policy import Policy, TokenPolicy
from verifier.check.trust import KeySet, key_set
from verifier.check.verify import verify
from verifier.native.terms import native_terms
from verifier.policies.document import parse_policies

__all__ = ["corpus"]

pytestmark = pytest.mark.processes

#: Mutated tokens of every test run; `make proof` asks about more.
MUTANTS: Final = 1_000
#: Characters that cannot be in a header, in which Envoy gets the token.
_NO_HEADER: Final = frozenset(range(32)) | {127}


@pytest.fixture(scope="module")
def native() -> Iterator[NativeEnvoy]:
    """One Envoy for this module."""
    with native_envoy() as running:
        yield running


def refusal(token: bytes, keys: KeySet, policy: TokenPolicy, now: int) -> str:
    """Return our reason to refuse; empty when we accept."""
    try:
        issuer = policy.issuers[0].issuer
        verify(token, trust_in(keys, issuer=issuer), policy, now)
    except Denied as denied:
        return denied.reason
    return ""


def weaker(
    native: NativeEnvoy,
    tokens: list[bytes],
    keys: KeySet,
    issuer: str = ISSUER,
    audience: str = AUDIENCE,
) -> dict[int, str]:
    """Return our reason for each token that Envoy alone accepts, by its place."""
    policy = TokenPolicy.own(issuer, audience)
    native.trust_key_set(keys, usual_terms(issuer, audience))
    before = int(time.time())
    statuses = native.statuses(tokens)
    after = int(time.time())
    found = {}
    for place, (token, status) in enumerate(zip(tokens, statuses, strict=True)):
        # A token that ends or begins meanwhile is no difference.
        first = refusal(token, keys, policy, before)
        last = refusal(token, keys, policy, after)
        if status == 200 and first and last:
            found[place] = first
    return found


def our_keys() -> KeySet:
    return key_set([fixed_key("ours").jwk])


def ours(header: Any = None, raw: Any = None, **changes: Any) -> bytes:
    """Return a token of our key; a claim of `...` is left out."""
    claims = good_claims(int(time.time()))
    claims |= {name: value for name, value in changes.items() if value is not ...}
    for name, value in changes.items():
        if value is ...:
            del claims[name]
    payload = orjson.dumps(claims) if raw is None else orjson.dumps(claims)[:-1] + raw
    kid = fixed_key("ours").kid
    usual = {"alg": "RS256", "typ": "at+jwt", "kid": kid}
    return make_token(
        payload,
        key=fixed_key("ours"),
        header=None if header is None else usual | header,
    )


def with_other_spelling(token: bytes) -> bytes:
    """Return the token with bits in its last character that no byte has."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + bytes([alphabet[alphabet.index(token[-1]) ^ 1]])


def cases() -> dict[str, tuple[str, bytes]]:
    """Return requirement and token of each case that we refuse, by its name."""
    now = int(time.time())
    good = ours()
    header, payload, signature = good.split(b".")
    none = base64url.encode(b'{"alg":"none","typ":"at+jwt"}').encode()
    first = base64url.encode(orjson.dumps({"alg": "RS256"})).encode()
    forbidden: dict[str, Any] = {
        "crit": ["x"],
        "b64": False,
        "jku": "https://e.test",
        "x5u": "u",
        "x5c": ["a"],
        "jwk": {"kty": "RSA"},
        "zip": "DEF",
    }
    values: dict[str, tuple[Any, ...]] = {
        "iss": (..., f"{ISSUER}/", ISSUER.upper(), "", 5, [ISSUER], None),
        "aud": (
            *(..., "", [], ["x"], 5, {"a": 1}, None, [AUDIENCE, 5], [[AUDIENCE]]),
            *(f"{AUDIENCE}/", f"https://{AUDIENCE}", f"http://{AUDIENCE}/"),
            *([f"{AUDIENCE}/"], [f"https://{AUDIENCE}"], AUDIENCE.upper()),
            base64url.encode(orjson.dumps([AUDIENCE])),
        ),
        "exp": (
            *(..., 0, -1, now - 5, now - 5.5, now - 600, str(now + 600), True),
            *(None, [now + 600], 1e30, 253_402_300_800, {}, "", 1e18, 9.2e18),
            *(2**53, 2**62, 2**63 - 1, 2**63, 2**63 + 1_024, 2**63 + 4_096),
            *(2**64 - 1, 2**64 - 2_048, 1.8e19),
        ),
    }
    typed: tuple[Any, ...] = ("", 5, True, [], {})
    generations: tuple[Any, ...] = ("3", "", "0\n1", True, -1, 1.5, [], None)
    return {
        "alg none": ("R14", none + b"." + payload + b"."),
        "alg none, signed": ("R14", none + b"." + payload + b"." + signature),
        "header of another token": ("R15", first + b"." + payload + b"." + signature),
        "no signature": ("R15", header + b"." + payload + b"."),
        "changed payload": (
            "R15",
            header + b"." + base64url.encode(b"{}").encode() + b"." + signature,
        ),
        **{f"alg {a}": ("R14", ours({"alg": a})) for a in ("PS256", "rs256", "HS256")},
        **{f"header {n}": ("R16", ours({n: v})) for n, v in forbidden.items()},
        **{f"typ {t}": ("R16", ours({"typ": t})) for t in ("JWT", "dpop+jwt", 5, "")},
        **{f"kid {k}": ("R22", ours({"kid": k})) for k in ("unknown", 5, "")},
        **{
            f"{name} {value!r}": ("R18 iss, aud, exp", ours(**{name: value}))
            for name, bad in values.items()
            for value in bad
        },
        **{
            f"{name} missing": ("R18", ours(**{name: ...}))
            for name in ("sub", "iat", "jti", "sid", "gen", "client_id")
        },
        **{
            f"{name} {value!r}": ("R18", ours(**{name: value}))
            for name in ("sub", "jti", "sid", "client_id")
            for value in typed
        },
        **{f"gen {value!r}": ("R18", ours(gen=value)) for value in generations},
        "iat in an hour": ("R26", ours(iat=now + 900, exp=now + 1_000)),
        "nbf in an hour": ("R26", ours(nbf=now + 900)),
        "lives longer than revocations": ("R53", ours(iat=now - 5_000)),
        "lives for a day": ("R53", ours(exp=now + 86_400)),
        "user with a line feed": ("R12", ours(username="a\nb: c")),
        "user with a hidden character": ("R12", ours(username="a\u202eb")),
        "session with a hidden character": ("R12", ours(sid="a\u202eb")),
        "user of another type": ("R18", ours(username=5)),
        "scope of another type": ("R18", ours(scope=["a"])),
        "roles of another type": ("R18", ours(roles="clerk")),
        **{
            f"{name} that is too long": ("R18", ours(**{name: "a" * 257}))
            for name in ("sub", "jti", "sid", "client_id", "username")
        },
        "role that is too long": ("R18", ours(roles=["a" * 257])),
        "9,000 bytes": ("R17", ours(pad="a" * 9_000)),
        "padding": ("R17", good + b"=="),
        "unused bits": ("R17", with_other_spelling(good)),
        "four segments": ("R17", good + b".x"),
        "empty segment before the claims": ("R17", good.replace(b".", b"..", 1)),
        "empty segment before the signature": ("R17", b"..".join(good.rsplit(b".", 1))),
        "empty segment at the beginning": ("R17", b"." + good),
        "empty segment at the end": ("R17", good + b"."),
        "three empty segments at the end": ("R17", good + b"..."),
        "twice the same claim": ("R17", ours(raw=b',"sub":"b"}')),
        "nested 40 deep": ("R17", ours(raw=b',"x":' + b"[" * 40 + b"]" * 40 + b"}")),
        "NaN": ("R17", ours(raw=b',"x":NaN}')),
        "bytes that are not UTF-8": ("R17", ours(raw=b',"x":"\xff"}')),
        "lone surrogate": ("R17", ours(raw=b',"x":"\\ud800"}')),
        "text behind the claims": ("R17", ours(raw=b"} x")),
        "comma behind the last claim": ("R17", ours(raw=b",}")),
    }


_OF_OTHER_TYPES: Final[tuple[Any, ...]] = (5, True, [], {})
#: What Envoy accepts and we refuse, by requirement.
WEAKER: Final = {
    "R12": ["user with a hidden character", "session with a hidden character"],
    "R17": [
        "9,000 bytes",
        "padding",
        "unused bits",
        "empty segment before the signature",
        "empty segment at the end",
        "three empty segments at the end",
        "nested 40 deep",
        "comma behind the last claim",
    ],
    "R18": [
        "iat missing",
        *(f"sid {value!r}" for value in _OF_OTHER_TYPES),
        *(f"client_id {value!r}" for value in _OF_OTHER_TYPES),
        *("gen '3'", "gen 1.5"),
        *("user of another type", "scope of another type", "roles of another type"),
        *(
            f"{name} that is too long"
            for name in ("sub", "jti", "sid", "client_id", "username", "role")
        ),
    ],
    "R26": ["iat in an hour"],
    "R53": ["lives longer than revocations"],
}


def test_named_cases_that_envoy_accepts(native: NativeEnvoy) -> None:
    named = cases()
    keys, policy = our_keys(), TokenPolicy.own(ISSUER, AUDIENCE)
    now = int(time.time())
    passing = [n for n, (_, t) in named.items() if not refusal(t, keys, policy, now)]
    assert passing == []
    tokens = [token for _, token in named.values()]
    # A good one before and after: it is not that all are refused.
    found = weaker(native, [ours(), *tokens, ours()], keys)
    assert native.statuses([ours()]) == [200]
    by_requirement = defaultdict(list)
    names = list(named)
    for place in found:
        name = names[place - 1]
        by_requirement[named[name][0]].append(name)
    assert dict(by_requirement) == WEAKER


#: The reasons of ours for mutants that Envoy accepts, and the requirements.
REASONS: Final = {
    DenyReason.TOKEN_TOO_LARGE: "R17",
    DenyReason.TOKEN_MALFORMED: "R17",
    DenyReason.CLAIMS_MALFORMED: "R12, R17, R18",
    DenyReason.CLAIM_MISSING: "R18",
    DenyReason.NOT_YET_VALID: "R26",
    DenyReason.LIFETIME_TOO_LONG: "R53",
}


@pytest.mark.proof
def test_mutants_that_envoy_accepts_are_explained(native: NativeEnvoy) -> None:
    """R14, R15, R18: signature, `iss`, `aud` and `exp` are right in each."""
    mutants = [
        mutant
        for mutant in mutants_now(examples(MUTANTS))
        if not _NO_HEADER.intersection(mutant.token)
    ]
    found = weaker(native, [mutant.token for mutant in mutants], our_keys())
    assert len(found) > MUTANTS / 50
    unexplained = [mutants[n] for n, reason in found.items() if reason not in REASONS]
    assert unexplained == []
    for place, reason in found.items():
        try:
            payload = base64url.decode(mutants[place].token.split(b".")[1])
            claims = read_object(payload)
        except (StrictJsonError, base64url.Base64urlError):
            continue  # another reading of the same claims (R17)
        assert claims["iss"] == ISSUER
        assert claims["aud"] in (AUDIENCE, [AUDIENCE])
        assert type(claims["exp"]) in {int, float}
        assert time.time() - 5 < claims["exp"] < time.time() + 3_610
        assert {"sub", "jti", "sid", "gen", "client_id"} <= claims.keys(), reason


def test_no_foreign_vector_passes_that_we_refuse(
    native: NativeEnvoy, corpus: list[dict[str, Any]]
) -> None:
    """R14 to R18; nearly all have another header than our issuer writes."""
    groups = defaultdict(list)
    for case in corpus:
        policy = case["policy"] or {}
        issuer, audience = policy.get("iss") or ISSUER, policy.get("aud") or AUDIENCE
        token = token_of(case).encode("utf-8", "surrogateescape")
        if not _NO_HEADER.intersection(token) and len(token) < 50_000:
            groups[case["jwks"], issuer, audience].append((case, token))
    asked, accepted = 0, []
    for (_, issuer, audience), members in groups.items():
        try:
            keys, _ = _read_keys(members[0][0]["keys"])
        except JwksError:
            continue  # of another algorithm, or private
        tokens = [token for _, token in members]
        found = weaker(native, tokens, keys, issuer, audience)
        accepted += [members[place][0]["id"] for place in found]
        asked += len(tokens)
    assert asked > 2_000
    assert accepted == []


#: What a policy asks besides, and claims: what our own check says of them is compared.
REQUIREMENTS: Final[list[tuple[str, list[dict[str, Any]]]]] = [
    (
        'any_scopes = ["a.b", "c|d"]',
        [{"scope": s} for s in ("a.b", "axb", "x a.b y", "c|d", "c", "d", "", None)],
    ),
    (
        'required_scopes = ["a", "b:[x]"]',
        [{"scope": s} for s in ("a b:[x]", "b:[x] a", "a", "a b:x", "A b:[x]", "a  b")],
    ),
    (
        'required_roles = ["clerk", "ops"]',
        [
            *({"roles": r} for r in (["ops"], ["x", "clerk"], [], ["OPS"], None)),
            *({"roles": r} for r in ({"clerk": 1}, "clerk", [["clerk"]], [1], "ops")),
        ],
    ),
    (
        f"required_roles = {[f'role-{n}' for n in range(200)]}",
        [{"roles": r} for r in (["role-0"], ["x", "role-199"], ["role-200"], [])],
    ),
    (
        'client_ids = ["web.app", "a|b"]',
        [{"client_id": c} for c in ("web.app", "webxapp", "a|b", "a", "xweb.app")],
    ),
    (
        'claims = { tenant = ["acme", "other"] }',
        [
            *({"tenant": t} for t in ("acme", "other", "Acme", None, 1, True, "")),
            *({"tenant": t} for t in (["x", "acme"], [["acme"]], {"acme": 1}, {})),
        ],
    ),
    (
        "claims = { verified = true }",
        [{"verified": v} for v in (True, 1, "true", [True], False, None, 1.0)],
    ),
    (
        "claims = { level = 1 }",
        [{"level": v} for v in (1, True, "1", [1], [2], 0, None)],
    ),
    (
        'claims.realm.roles = "ops"',
        [
            {"realm": realm}
            for realm in ({"roles": ["ops"]}, {"roles": "ops"}, ["ops"], "ops", None)
        ],
    ),
]


@pytest.mark.parametrize(("text", "claims"), REQUIREMENTS, ids=lambda v: str(v)[:30])
def test_envoy_asks_what_the_policy_asks(
    native: NativeEnvoy, text: str, claims: list[dict[str, Any]]
) -> None:
    """R8: what our check permits passes, and what it refuses does not."""
    token = TokenPolicy.own(ISSUER, AUDIENCE)
    policy = parse_policies(f"[policies.default]\n{text}", token)["default"]
    terms = usual_terms() | {"default": native_terms(policy)}
    native.trust_key_set(our_keys(), terms)
    tokens = [ours(**each) for each in claims]
    passed = [status == 200 for status in native.statuses(tokens)]
    assert passed == [permits(policy, each) for each in tokens]
    assert True in passed
    assert False in passed


def permits(policy: Policy, token: bytes) -> bool:
    now = int(time.time())
    try:
        claims = verify(token, trust_in(our_keys()), policy.token, now)
        policy.permit(claims, policy.find_rule(b"GET", None, b"/"), now)
    except Denied:
        return False
    return True
