"""A policy means what a naive reading of its file means, over any request (R7, R61)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.feed import EntryKind, FeedEntry
from tests.support.proofs import examples
from tests.support.tokens import AUDIENCE, ISSUER, good_claims, make_token, signing_key
from verifier.check.decision import Allowed, CheckPaths, Refused, Times, decide
from verifier.check.forward_auth import PlainCheckRequest
from verifier.check.policy import PolicyBook, TokenPolicy
from verifier.check.trust import Trust, key_set
from verifier.policies.document import parse_policies

pytestmark = pytest.mark.proof

NOW = 1_795_000_000
LEEWAY = 5
TOKEN = TokenPolicy.own(ISSUER, AUDIENCE, LEEWAY)
METHODS = ["GET", "POST", "OPTIONS"]
HOSTS = ["a.test", "b.a.test", "c.b.a.test", "ba.test"]
SEGMENTS = ["x", "y"]
SCOPES = ["r", "w"]
WORDS = st.lists(st.sampled_from(SCOPES), min_size=1, max_size=2, unique=True)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


REQUIREMENTS: dict[str, st.SearchStrategy[Any]] = {
    "required_scopes": WORDS,
    "any_scopes": WORDS,
    "required_roles": WORDS,
    "client_ids": st.just(["app"]),
    "claims": st.just({"tenant": ["acme", 1]}),
    "max_age": st.just(100),
    "max_auth_age": st.just(200),
}
PATHS = st.lists(st.sampled_from([*SEGMENTS, "*"]), max_size=2).flatmap(
    lambda segments: st.sampled_from([segments, [*segments, "**"]])
)
OPEN = st.sampled_from([{"public": True}, {"optional": True}])


def with_place(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[Any]:
    place = st.fixed_dictionaries(
        {"path": PATHS.map(lambda segments: "/" + "/".join(segments))},
        optional={
            "methods": st.lists(st.sampled_from(METHODS), min_size=1, unique=True),
            "hosts": st.lists(
                st.sampled_from([*HOSTS, "*.a.test", "*.b.a.test"]),
                min_size=1,
                unique=True,
            ),
        },
    )
    return st.builds(lambda a, b: a | b, place, inner)


RULES = st.lists(with_place(st.one_of(OPEN, some(**REQUIREMENTS))), max_size=3)
POLICIES = st.builds(
    lambda asked, opening, preflight, rules: (
        (asked if rules or not opening else opening) | preflight | {"rules": rules}
    ),
    some(**REQUIREMENTS),
    st.one_of(st.just({}), OPEN),
    some(preflight=st.just("allow")),
    RULES,
)
CLAIMS = st.fixed_dictionaries(
    {
        "scope": st.sampled_from(["", "r", "w", "r w"]),
        "roles": st.sampled_from([[], ["r"], ["r", "w"]]),
        "client_id": st.sampled_from(["app", "web"]),
        "tenant": st.sampled_from(["acme", "other", 1, True, None, ["x", "acme"]]),
        "iat": st.sampled_from([NOW, NOW - 105, NOW - 106]),
        "auth_time": st.sampled_from([NOW, NOW - 205, NOW - 206, None]),
    }
)
REQUESTS = st.fixed_dictionaries(
    {
        "method": st.sampled_from(METHODS),
        "host": st.sampled_from(HOSTS),
        "segments": st.lists(st.sampled_from([*SEGMENTS, "z"]), max_size=3),
        "is_preflight": st.booleans(),
        "token": st.sampled_from(["none", "good", "bad"]),
    }
)


def to_toml(name: str, table: dict[str, Any]) -> str:
    """Write a policy as its file has it; the values here are written as in Python."""

    def write(value: Any) -> str:
        if isinstance(value, dict):
            inner = ", ".join(f"{key} = {write(v)}" for key, v in value.items())
            return f"{{ {inner} }}"
        return repr(value).lower() if isinstance(value, bool) else repr(value)

    lines = [f"[policies.{name}]"]
    lines += [f"{key} = {write(v)}" for key, v in table.items() if key != "rules"]
    for rule in table["rules"]:
        lines.append(f"[[policies.{name}.rules]]")
        lines += [f"{key} = {write(value)}" for key, value in rule.items()]
    return "\n".join(lines)


def find_rule(policy: dict[str, Any], request: dict[str, Any]) -> dict[str, Any] | None:
    for rule in policy["rules"]:
        pattern = [part for part in rule["path"].split("/") if part]
        given_path = list(request["segments"])
        if pattern[-1:] == ["**"]:
            pattern.pop()
            given_path = given_path[: len(pattern)]
        is_path = len(pattern) == len(given_path) and all(
            wanted in ("*", found)
            for wanted, found in zip(pattern, given_path, strict=True)
        )
        hosts = rule.get("hosts", [request["host"]])
        is_host = any(
            (
                request["host"].endswith(host[1:])
                if host[0] == "*"
                else host == request["host"]
            )
            for host in hosts
        )
        if is_path and is_host and request["method"] in rule.get("methods", METHODS):
            return dict(rule)
    return None


def has_all(asked: dict[str, Any], claims: dict[str, Any]) -> bool:
    scopes, roles = set(claims["scope"].split()), set(claims["roles"])
    tenant = claims["tenant"]
    tenants = tenant if isinstance(tenant, list) else [tenant]
    auth_time = claims["auth_time"] or 0
    return (
        set(asked.get("required_scopes", [])) <= scopes
        and ("any_scopes" not in asked or bool(set(asked["any_scopes"]) & scopes))
        and (
            "required_roles" not in asked or bool(set(asked["required_roles"]) & roles)
        )
        and ("client_ids" not in asked or claims["client_id"] in asked["client_ids"])
        and ("claims" not in asked or any(str(one) in ("acme", "1") for one in tenants))
        and ("max_age" not in asked or NOW - claims["iat"] <= 100 + LEEWAY)
        and ("max_auth_age" not in asked or NOW - auth_time <= 200 + LEEWAY)
    )


def passes(
    policy: dict[str, Any], request: dict[str, Any], claims: dict[str, Any]
) -> bool:
    """Return what the file says about the request, read line by line."""
    has_token = request["token"] != "none"
    is_preflight = request["is_preflight"] and request["method"] == "OPTIONS"
    if policy.get("preflight") == "allow" and is_preflight and not has_token:
        return True
    rule = find_rule(policy, request)
    if policy["rules"] and rule is None:
        return False
    choice = policy if rule is None else rule
    if choice.get("public") or (choice.get("optional") and not has_token):
        return True
    if request["token"] != "good":
        return False
    if choice.get("optional"):
        return True
    return has_all(policy, claims) and has_all(rule or {}, claims)


def ask(
    policy: dict[str, Any],
    request: dict[str, Any],
    claims: dict[str, Any],
    trust: Trust | None = None,
) -> Allowed | Refused:
    """Return the outcome of `decide`."""
    policies = parse_policies(to_toml("a", policy), TOKEN)
    sent = [
        (b"x-original-method", request["method"].encode()),
        (b"x-original-host", request["host"].encode()),
        (b"x-original-uri", b"/" + "/".join(request["segments"]).encode()),
    ]
    if request["is_preflight"]:
        sent += [
            (b"origin", b"https://a.test"),
            (b"access-control-request-method", b"PUT"),
        ]
    if request["token"] == "good":
        token = make_token(good_claims(NOW, **claims))
        sent.append((b"authorization", b"Bearer " + token))
    elif request["token"] == "bad":
        sent.append((b"authorization", b"Bearer x.y.z"))
    check = PlainCheckRequest(b"GET", b"/verify/nginx/p/a", sent, peer_is_trusted=True)
    paths = CheckPaths(PolicyBook(policies))
    snapshot = (trust or trusting()).snapshot
    return decide(check, snapshot, paths, Times(NOW, 1))


def trusting(*, is_stale: bool = False, has_keys: bool = True) -> Trust:
    trust = Trust(ISSUER)
    if has_keys:
        trust.trust_keys(ISSUER, key_set([signing_key().jwk]), 2)
    trust.enforce([FeedEntry(1, EntryKind.SID, "revoked", 0, NOW + 900)])
    trust.renew(0.5 if is_stale else 2)
    return trust


@settings(deadline=None, max_examples=examples(400))
@given(POLICIES, REQUESTS, CLAIMS)
def test_decision_is_what_the_file_says(
    policy: dict[str, Any], request: dict[str, Any], claims: dict[str, Any]
) -> None:
    outcome = ask(policy, request, claims)
    assert isinstance(outcome, Allowed) is passes(policy, request, claims)


TOKENS = st.fixed_dictionaries(
    {
        "exp": st.sampled_from([NOW + 300, NOW - 60]),
        "sid": st.sampled_from(["sid-1", "revoked"]),
        "aud": st.sampled_from([AUDIENCE, "other"]),
        "iss": st.sampled_from([ISSUER, "https://other.test"]),
    }
)
#: What the policy and its rules say, as docs/policies.md lists it.
SHADOWED = {
    *("scope_insufficient", "role_missing", "client_not_allowed", "claim_mismatch"),
    *("token_too_old", "authentication_too_old", "rule_missing"),
}


@settings(deadline=None, max_examples=examples(400))
@given(
    POLICIES,
    REQUESTS,
    CLAIMS,
    st.one_of(st.just({}), TOKENS),
    st.sampled_from([{}, {"is_stale": True}, {"has_keys": False}]),
    st.booleans(),
)
def test_shadow_mode_changes_nothing_that_a_token_check_decides(
    policy: dict[str, Any],
    request: dict[str, Any],
    claims: dict[str, Any],
    changes: dict[str, Any],
    trust: dict[str, bool],
    allows_stale: bool,
) -> None:
    """R65: only a good token passes that scopes, claims or rules would refuse."""
    policy = policy | ({"on_stale": "allow"} if allows_stale else {})
    asked = request, claims | changes, trusting(**trust)
    enforced = ask(policy, *asked)
    shadow = ask(policy | {"mode": "shadow"}, *asked)
    # The same token where nothing but the token is asked for.
    plain = ask({"rules": [], "on_stale": policy.get("on_stale", "deny")}, *asked)
    if isinstance(enforced, Allowed):
        assert isinstance(shadow, Allowed)
        assert shadow.answer == enforced.answer
        assert shadow.shadowed is None
    elif enforced.reason in SHADOWED and isinstance(plain, Allowed):
        assert isinstance(shadow, Allowed)
        assert shadow.shadowed is enforced.reason
        word = b"allow-stale" if trust.get("is_stale") else b"allow-shadow"
        assert dict(shadow.answer.headers)[b"X-Auth-Decision"] == word
        assert shadow.claims is not None
        assert shadow.claims._replace(kept={}) == plain.claims
    else:
        assert isinstance(shadow, Refused)
        assert isinstance(plain, Refused)
        assert shadow.reason is plain.reason
