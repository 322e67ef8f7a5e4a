"""`/explain` says what the gate answers, over any request (R66)."""

from __future__ import annotations

import itertools
from collections.abc import Coroutine
from functools import cache
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response

from shared.feed import EntryKind
from tests.support.gatehouse_verifier import SimulatedVerifier, unstarted
from tests.support.proofs import examples
from tests.support.tokens import good_claims, make_token, signing_key
from verifier.check.forward_auth import PlainCheckRequest
from verifier.operators.explain import Explainer
from verifier.policies.explanation import ORDERS

pytestmark = pytest.mark.proof

#: What policies say in their first lines, in all combinations.
MODES = ("", 'mode = "shadow"')
STALE = ("", 'on_stale = "allow"\ndecision_ids = true')
PREFLIGHTS = ("", 'preflight = "allow"')
METADATA = """[policies.{name}.resource_metadata]
resource = "https://api.example.com/{name}"
authorization_servers = ["https://issuer.test"]
"""
ASKED = """required_scopes = ["r"]
required_roles = ["clerk", "chief"]
client_ids = ["app", "web"]
claims = { tenant = ["acme", "other"] }
max_age = 400
max_auth_age = 400
"""
RULES = """[[policies.{name}.rules]]
path = "/assets/**"
public = true
[[policies.{name}.rules]]
path = "/maybe"
optional = true
"""
NARROW = """[[policies.{name}.rules]]
hosts = ["a.test", "*.b.test"]
path = "/**"
required_scopes = ["w"]
client_ids = ["app"]
[[policies.{name}.rules]]
methods = ["GET"]
path = "/orders/*"
any_scopes = ["w", "x"]
required_roles = ["chief"]
claims = {{ tenant = "acme" }}
max_age = 200
max_auth_age = 200
"""


def write_policies() -> tuple[str, list[str]]:
    """Return a policy file with every kind of policy, and their names."""
    texts: list[str] = []
    names: list[str] = []

    def add(head: str, tail: str = "") -> None:
        name = f"p{len(names)}"
        names.append(name)
        rest = tail.format(name=name)
        texts.append(f"[policies.{name}]\n{head}\n{rest}")

    for heads in itertools.product(MODES, STALE, PREFLIGHTS):
        head = "\n".join(heads)
        add(head)
        add(f"{head}\n{ASKED}", METADATA)
        add(head, NARROW)
        add(f"{head}\n{ASKED}", NARROW + METADATA)
        if not heads[0]:
            add(head, RULES + NARROW)
    for stale, opening in itertools.product(STALE, ("public", "optional")):
        add(f"{stale}\n{opening} = true")
    add('audience = "office"')
    return "\n".join(texts), [*names, "default", "none"]


POLICY_FILE, POLICIES = write_policies()
#: Seconds since the last news; a verifier without news has neither keys nor list.
AGES = {"fresh": 1, "late": 20, "stale": 40, "keys-too-old": 100_000, "no-news": None}
REVOKED = [
    (EntryKind.SID, "gone"),
    (EntryKind.JTI, "gone"),
    (EntryKind.USER, "gone"),
    (EntryKind.KID, signing_key("second").kid),
]


def run(step: Coroutine[Any, Any, Any]) -> Any:
    """Run a step to its end; here nothing ever waits."""
    try:
        while True:
            step.send(None)
    except StopIteration as stop:
        return stop.value


@cache
def verifier_aged(age: str) -> SimulatedVerifier:
    verifier = unstarted(policies=POLICY_FILE)
    verifier.issuer.rotate("second")
    for kind, key in REVOKED:
        verifier.issuer.revoke(kind, key, 1)
    if (seconds := AGES[age]) is not None:
        run(verifier.sync())
        verifier.clock.advance(seconds)
    return verifier


@cache
def mint(claims: str, key: str, kid: str, alg: str) -> str:
    header = {"alg": alg, "typ": "at+jwt", "kid": signing_key(kid).kid}
    token = make_token(orjson.loads(claims), key=signing_key(key), header=header)
    return token.decode()


GOOD = ("first", "first", "RS256")
CLAIMS: list[dict[str, Any]] = [
    *[{}] * 10,
    *[{"iat": -300}] * 2,
    *[{"iat": -500}] * 2,
    {"exp": -10},
    {"nbf": 60},
    {"exp": 100_000},
    {"sid": "gone"},
    {"jti": "gone"},
    {"sub": "gone"},
    {"aud": "office"},
    {"iss": "https://evil.test"},
    {"jti": None},
    {"gen": "1"},
]
SIGNED = st.fixed_dictionaries(
    {
        "change": st.sampled_from(CLAIMS),
        "signed": st.sampled_from(
            [
                *[GOOD] * 10,
                ("third", "third", "RS256"),
                ("third", "first", "RS256"),
                ("second", "second", "RS256"),
                ("first", "first", "none"),
            ]
        ),
        "claims": st.fixed_dictionaries(
            {
                "scope": st.sampled_from(["r w", "r w x", "r", "r x", ""]),
                "roles": st.sampled_from([["chief"], ["chief"], ["clerk"], []]),
                "client_id": st.sampled_from(["app", "app", "app", "web", "evil"]),
                "tenant": st.sampled_from(["acme", "other", "evil", 1]),
                "auth_time": st.sampled_from([0, -300, -500]),
            }
        ),
    }
)
TOKENS = st.one_of(
    *[SIGNED] * 4,
    st.sampled_from([None, "", "x", "a.b", "a.b.c", "a b", "é", "x" * 9_000]),
    st.text(max_size=20),
)
EXTRA_HEADERS = st.sampled_from(
    [
        *[{}] * 10,
        {"Origin": "https://a.test", "Access-Control-Request-Method": "PUT"},
        {"Authorization": "Basic eDp5"},
        {"X_Original_URI": "/assets/x"},
        {"X-Forwarded-Uri": ["/orders/7", "/assets/x"]},
    ]
)
REQUESTS = st.fixed_dictionaries(
    {
        "policy": st.sampled_from(POLICIES),
        "dialect": st.sampled_from(["nginx", "nginx", "envoy", "caddy", "haproxy"]),
        "method": st.sampled_from(
            ["GET", "GET", "GET", "GET", "POST", "OPTIONS", "get", ""]
        ),
        "host": st.sampled_from(["a.test", "A.test:443", "x.b.test", "c.test", ""]),
        "uri": st.sampled_from(
            ["/", "/assets/a", "/maybe", "/orders/7", "/orders/7?q=1", "/a/../b", ""]
        ),
        "headers": EXTRA_HEADERS,
    }
)
#: The headers of each gateway for method, host and uri.
ORIGINAL = ("x-original-method", "x-original-host", "x-original-uri")
FORWARDED = ("x-forwarded-method", "x-forwarded-host", "x-forwarded-uri")


def from_gateway(asked: dict[str, Any]) -> PlainCheckRequest:
    """Return the check request of the gateway, written apart from the product's own."""
    headers = [
        (name.lower(), value)
        for name, values in asked["headers"].items()
        for value in (values if isinstance(values, list) else [values])
    ]
    if "token" in asked:
        headers.append(("authorization", f"Bearer {asked['token']}"))
    target, method = f"/verify/{asked['dialect']}/p/{asked['policy']}", "GET"
    client = [asked["method"], asked["host"], asked["uri"]]
    if asked["dialect"] == "envoy":
        method, target = asked["method"] or "GET", target + asked["uri"]
        headers.append(("host", asked["host"]))
    else:
        names = FORWARDED if asked["dialect"] == "caddy" else ORIGINAL
        headers += zip(names, client, strict=True)
    encoded = [(name.encode(), value.encode()) for name, value in headers if value]
    return PlainCheckRequest(method.encode(), target.encode(), encoded, True)


def ask(explainer: Explainer, body: dict[str, Any]) -> dict[str, Any]:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": orjson.dumps(body)}

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    answer: Response = run(explainer.answer(request))
    assert answer.status_code == 200, answer.body
    said: dict[str, Any] = orjson.loads(answer.body)
    return said


def require_consistent(said: dict[str, Any]) -> None:
    """Require that the list of checks says what the decision says, in its order."""
    rows = said["checks"]
    names, outcomes = zip(*[(r["check"], r["outcome"]) for r in rows], strict=True)
    assert names in ORDERS
    is_deny = said["decision"] == "deny"
    assert outcomes.count("refused") == is_deny
    assert outcomes.count("would_refuse") == bool(said["shadow_reason"])
    ended = [r for r in rows if r["outcome"] in ("refused", "would_refuse")]
    assert [r.get("reason") for r in rows if r.get("reason")] == [
        r["reason"] for r in ended
    ]
    if not ended:
        assert "not_reached" not in outcomes
        return
    assert ended[0]["reason"] == (said["reason"] or said["shadow_reason"])
    place = rows.index(ended[0])
    assert "not_reached" not in outcomes[:place]
    assert set(outcomes[place + 1 :]) <= {"not_reached"}


def token_of(made: Any, now: int) -> str | None:
    """Return the token that was drawn; its times are seconds from now."""
    if not isinstance(made, dict):
        return str(made) if made is not None else None
    claims = good_claims(now, **(made["claims"] | made["change"]))
    for name in ("iat", "exp", "nbf", "auth_time"):
        if name in made["change"] or name == "auth_time":
            claims[name] = claims[name] + now
    return mint(orjson.dumps(claims).decode(), *made["signed"])


@settings(deadline=None, max_examples=examples(500))
@given(TOKENS, REQUESTS, st.sampled_from([*["fresh"] * 7, *AGES]))
def test_explain_equals_the_gate(made: Any, asked: dict[str, Any], age: str) -> None:
    verifier = verifier_aged(age)
    clock = verifier.clock
    explainer = Explainer(verifier.parts, clock.now, clock.monotonic)
    token = token_of(made, clock.now())
    if token is not None:
        asked = asked | {"token": token}
    shadowed = verifier.gate.shadow_counts.by_key.total()
    answer = verifier.gate.answer(from_gateway(asked))
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    said = ask(explainer, asked)
    assert said["reason"] == verifier.last_reason()
    assert said["status"] == answer.status
    assert said["decision"] == ("allow" if answer.status == 200 else "deny")
    assert said["auth_decision"] == headers.get("X-Auth-Decision", "")
    assert said["challenge"] == headers.get("WWW-Authenticate", "")
    is_shadowed = verifier.gate.shadow_counts.by_key.total() > shadowed
    assert bool(said["shadow_reason"]) is is_shadowed
    require_consistent(said)
    if token and len(token) > 30:
        assert token not in str(said)
    if (decision_id := headers.get("X-Auth-Decision-Id")) is not None:
        require_same_record(ask(explainer, {"decision_id": decision_id}), said)


def require_same_record(kept: dict[str, Any], said: dict[str, Any]) -> None:
    """Require that the decision is found by its id, and nothing of token or path."""
    require_consistent(kept)
    same = ("decision", "status", "reason", "shadow_reason", "auth_decision")
    for name in (*same, "dialect", "policy"):
        assert kept[name] == said[name]
    for row, other in zip(kept["checks"], said["checks"], strict=True):
        if other["outcome"] == "not_checked":
            assert row["check"] in ("gate", "peer")
            assert row["outcome"] == "passed"
        else:
            assert row == other
    assert set(kept) == {
        *(*same, "dialect", "policy", "decision_id", "decided_at", "rule"),
        *("policies_changed", "issuer", "kid", "feed", "checks"),
    }
    assert "/" not in str(kept | {"rule": None})
