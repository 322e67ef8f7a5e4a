"""`POST /explain`: what it says about a request and about a decision id (R66)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.gatehouse_verifier import started
from tests.support.operators_port import Operator, operating
from tests.support.tokens import good_claims, make_token, signing_key

POLICIES = """
[policies.orders]
decision_ids = true
[policies.orders.resource_metadata]
resource = "https://api.example.com/orders"
authorization_servers = ["https://issuer.test"]
[[policies.orders.rules]]
path = "/orders/*"
methods = ["PUT", "POST"]
hosts = ["api.test", "*.ops.test"]
required_scopes = ["orders:admin"]
[[policies.orders.rules]]
path = "/**"
[policies.trial]
mode = "shadow"
required_roles = ["chief"]
[policies.shop]
preflight = "allow"
"""


@pytest.fixture
async def operator() -> AsyncIterator[Operator]:
    async with operating(await started(policies=POLICIES)) as running:
        yield running


def outcomes(said: dict[str, Any]) -> dict[str, str]:
    return {row["check"]: row["outcome"] for row in said["checks"]}


async def test_refusal_names_check_rule_key_position_and_challenge(
    operator: Operator,
) -> None:
    verifier = operator.verifier
    verifier.clock.advance(7)
    said = await operator.explain(
        token=verifier.issuer.mint().decode(),
        policy="orders",
        method="POST",
        host="api.test",
        uri="/orders/7",
    )
    assert (said["decision"], said["status"]) == ("deny", 403)
    assert (said["reason"], said["auth_decision"]) == ("scope_insufficient", "")
    assert (said["dialect"], said["policy"]) == ("nginx", "orders")
    assert said["rule"] == {
        "number": 1,
        "path": "/orders/*",
        "methods": ["POST", "PUT"],
        "hosts": ["*.ops.test", "api.test"],
        "public": False,
        "optional": False,
    }
    assert said["kid"] == verifier.issuer.keys[0].kid
    assert said["feed"] == {
        "epoch": verifier.issuer.epoch,
        "position": 0,
        "age": 7,
        "fresh_for": 23,
    }
    assert said["keys"] == {"age": 7, "usable_for": 86_393}
    assert said["challenge"].startswith("Bearer realm=")
    assert 'scope="orders:admin"' in said["challenge"]
    assert said["claims"]["sid"] == "sid-1"
    found = outcomes(said)
    assert (found["gate"], found["peer"]) == ("not_checked", "not_checked")
    assert (found["token_signature"], found["rule"]) == ("passed", "passed")
    assert found["policy_scopes"] == "not_needed"
    assert found["rule_scopes"] == "refused"
    assert found["rule_roles"] == "not_reached"


async def test_bad_signature_names_the_key_only_if_it_is_ours(
    operator: Operator,
) -> None:
    claims, kid = good_claims(operator.verifier.clock.now()), signing_key().kid
    header = {"alg": "RS256", "typ": "at+jwt", "kid": kid}
    forged = make_token(claims, key=signing_key("second"), header=header).decode()
    said = await operator.explain(token=forged)
    assert (said["reason"], said["kid"]) == ("signature_invalid", kid)
    assert "claims" not in said
    foreign = make_token(claims, header=header | {"kid": "hush-hush"}).decode()
    said = await operator.explain(token=foreign)
    assert (said["reason"], said["kid"]) == ("kid_unknown", "")
    assert "hush-hush" not in str(said)


async def test_shadow_allow_says_what_would_refuse(operator: Operator) -> None:
    token = operator.verifier.issuer.mint().decode()
    said = await operator.explain(token=token, policy="trial")
    assert (said["decision"], said["auth_decision"]) == ("allow", "allow-shadow")
    assert said["shadow_reason"] == "role_missing"
    assert outcomes(said)["policy_roles"] == "would_refuse"


async def test_headers_and_dialect_are_those_of_the_request(
    operator: Operator,
) -> None:
    preflight = {"Origin": "https://a.test", "access-control-request-method": "PUT"}
    for dialect in ("nginx", "envoy", "caddy", "traefik", "haproxy", "apache"):
        said = await operator.explain(
            policy="shop", dialect=dialect, method="OPTIONS", uri="/", headers=preflight
        )
        assert said["auth_decision"] == "allow-anonymous", dialect
    said = await operator.explain(token="x", headers={"Authorization": "Bearer y"})
    assert said["reason"] == "credential_repeated"
    twice = {"X-Original-Uri": ["/a", "/b"]}
    assert (await operator.explain(headers=twice))["reason"] == "forwarded_repeated"


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"dialect": "pigeon"}, "dialect"),
        ({"headers": "x"}, "headers"),
        ({"headers": {"a": 1}}, "headers"),
        ({"headers": {"a": ["b", 1]}}, "headers"),
        ({"method": ["GET"]}, "method"),
        ({"dialect": "envoy", "uri": "s3cret"}, "uri"),
        ({"s3cret": "s3cret"}, "Only these members"),
        ({"decision_id": "s3cret"}, "decision_id"),
        ({"decision_id": 7}, "decision_id"),
        ({"decision_id": "0" * 16, "token": "s3cret"}, "decision_id"),
    ],
)
async def test_unusable_question_is_400_and_names_the_member(
    operator: Operator, asked: dict[str, Any], named: str
) -> None:
    answer = await operator.client.post("/explain", json=asked)
    assert answer.status_code == 400
    assert named in answer.json()["detail"]
    assert "s3cret" not in answer.text


async def test_decision_is_explained_by_its_id(operator: Operator) -> None:
    verifier = operator.verifier
    headers = [
        (b"x-original-method", b"POST"),
        (b"x-original-host", b"api.test"),
        (b"x-original-uri", b"/orders/secret"),
    ]
    target, token = b"/verify/caddy/p/orders", verifier.issuer.mint()
    headers = [(name.replace(b"original", b"forwarded"), v) for name, v in headers]
    answer = verifier.check(token, target=target, headers=headers)
    decision_id = dict(answer.headers)[b"X-Auth-Decision-Id"].decode()
    decided_at = verifier.clock.now()
    verifier.clock.advance(3)
    said = await operator.explain(decision_id=decision_id.upper())
    checks = said.pop("checks")
    assert said == {
        "decision_id": decision_id,
        "decided_at": decided_at,
        "decision": "deny",
        "status": 403,
        "reason": "scope_insufficient",
        "shadow_reason": "",
        "auth_decision": "",
        "dialect": "caddy",
        "policy": "orders",
        "rule": {
            "number": 1,
            "path": "/orders/*",
            "methods": ["POST", "PUT"],
            "hosts": ["*.ops.test", "api.test"],
            "public": False,
            "optional": False,
        },
        "policies_changed": False,
        "issuer": "own",
        "kid": signing_key().kid,
        "feed": {"epoch": verifier.issuer.epoch, "position": 0, "fresh_for": 30},
    }
    assert outcomes({"checks": checks})["peer"] == "passed"
    assert {"check": "rule_scopes", "outcome": "refused", "reason": said["reason"]} in (
        checks
    )


async def test_allow_with_an_id_and_a_refused_connection_are_explained(
    operator: Operator,
) -> None:
    verifier = operator.verifier
    allow = verifier.check(
        verifier.issuer.mint(),
        target=b"/verify/nginx/p/orders",
        headers=[
            (b"x-original-method", b"GET"),
            (b"x-original-host", b"x"),
            (b"x-original-uri", b"/"),
        ],
    )
    refused = verifier.gate.refuse_connection()
    found = [
        await operator.explain(
            decision_id=dict(answer.headers)[b"X-Auth-Decision-Id"].decode()
        )
        for answer in (allow, refused)
    ]
    assert (found[0]["auth_decision"], found[0]["rule"]["number"]) == ("allow", 2)
    assert (found[1]["reason"], found[1]["status"]) == ("overloaded", 503)
    assert outcomes(found[1])["gate"] == "refused"


async def test_rule_of_an_old_policy_file_is_a_number_only(operator: Operator) -> None:
    """The rule that has the number now may be another one."""
    gate = operator.verifier.gate
    answer = operator.verifier.check(
        None,
        target=b"/verify/nginx/p/orders",
        headers=[(b"x-original-method", b"GET"), (b"x-original-uri", b"/")],
    )
    decision_id = dict(answer.headers)[b"X-Auth-Decision-Id"].decode()
    gate.adopt(type(gate.policies)(gate.policies.policies, "another digest"))
    said = await operator.explain(decision_id=decision_id)
    assert (said["policies_changed"], said["rule"]) == (True, None)
    assert said["policy"] == "orders"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://127.0.0.1:9100"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "evil.test"},
        {"Host": "evil.test:9100"},
        {"Host": "127.0.0.1.evil.test"},
        {"Host": "localhost.evil.test"},
        {"Host": "[::1"},
        {"Host": "2130706433"},
        {"Host": ""},
    ],
    ids=str,
)
async def test_request_of_a_browser_is_403_and_decides_nothing(
    operator: Operator, headers: dict[str, str]
) -> None:
    """A page could otherwise ask through an operator's browser (DNS rebinding)."""
    for method in ("POST", "OPTIONS", "PUT"):
        answer = await operator.client.request(
            method, "/explain", headers=headers, content=b"{}"
        )
        assert answer.status_code == 403
        named = next(iter(headers))
        assert named in answer.json()["detail"]
        assert "evil" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "127.0.0.1"},
        {"Host": "10.1.2.3:9100"},
        {"Host": "[::1]:9100"},
        {"Host": "LOCALHOST:9100"},
        {"Host": "Verifier.internal"},
        {"Sec-Fetch-Site": "none"},
    ],
    ids=str,
)
async def test_request_of_a_program_is_answered(headers: dict[str, str]) -> None:
    async with operating(await started(), host="verifier.internal") as operator:
        answer = await operator.client.post("/explain", headers=headers, json={})
        assert answer.status_code == 200


async def test_a_unix_socket_has_no_foreign_host() -> None:
    async with operating(await started(), host="") as operator:
        answer = await operator.client.post(
            "/explain", headers={"Host": "any"}, json={}
        )
        assert answer.status_code == 200
        answer = await operator.client.post("/explain", headers={"Origin": "x"})
        assert answer.status_code == 403


async def test_probes_and_scrapes_may_use_any_host(operator: Operator) -> None:
    """Kubernetes and Prometheus use names of services."""
    await operator.verifier.sync()
    for path in ("/metrics", "/healthz", "/readyz", "/status"):
        for headers in ({"Host": "verifier.prod.svc"}, {"Sec-Fetch-Site": "none"}):
            answer = await operator.client.get(path, headers=headers)
            assert answer.status_code in (200, 503)
