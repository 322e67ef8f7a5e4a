"""One request at the gate: the conditions for passing, and every refusal."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NoReturn

import pytest

from tests.support.gate_counts import counts_of, forget_counts
from tests.support.gate_dependencies import gate_dependencies
from tests.support.gatehouse_verifier import broken_key_set, is_requested, started
from tests.support.tokens import ISSUER, signing_key
from verifier.check.answers import IDENTITY_HEADERS, Answer
from verifier.check.cache import FactCache
from verifier.check.forward_auth import DIALECTS, PlainCheckRequest
from verifier.check.gate import Gate

STRICT = """
[policies.strict]
required_scopes = ["admin"]
[policies.lax]
on_stale = "allow"
[policies.orders]
audience = "orders"
"""
ADMIN_BY_DEFAULT = """
[policies.default]
required_scopes = ["admin"]
[policies.lax]
"""
RULES = """
[[policies.default.rules]]
path = "/public/**"
[[policies.default.rules]]
path = "/**"
required_scopes = ["admin"]
"""


def decision(answer: Answer) -> bytes:
    return dict(answer.headers).get(b"X-Auth-Decision", b"")


async def test_a_good_token_passes_and_is_counted() -> None:
    verifier = await started()
    for _ in range(2):
        answer = verifier.check(verifier.issuer.mint())
        assert (answer.status, answer.body) == (200, b"")
        assert {name for name, _ in answer.headers} >= set(IDENTITY_HEADERS)
        assert decision(answer) == b"allow"
        assert verifier.last_reason() == ""


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
async def test_cve_2026_40575_untrusted_peer_is_refused_with_any_request(
    dialect: bytes,
) -> None:
    """R1: 503, with the best of tokens, before anything of it is looked at."""
    verifier = await started()
    answer = verifier.check(
        verifier.issuer.mint(),
        target=b"/verify/" + dialect,
        headers=[(b"x-forwarded-for", b"127.0.0.1"), (b"x-real-ip", b"127.0.0.1")],
        peer_is_trusted=False,
    )
    assert answer.status == 503
    assert verifier.last_reason() == "peer_untrusted"
    cache = next(iter(verifier.gate.caches.values()))
    assert cache.counts.misses == 0


@pytest.mark.parametrize(
    "header",
    [
        (b"user-agent", b"GoogleHC/1.0"),
        (b"user-agent", b"kube-probe/1.29"),
        (b"user-agent", b"ELB-HealthChecker/2.0"),
        (b"x-auth-decision", b"allow"),
        (b"x-auth-subject", b"admin"),
        (b"x-auth-user", b"admin"),
        (b"x-forwarded-user", b"admin"),
        (b"x-original-uri", b"/healthz"),
        (b"x-forwarded-uri", b"/healthz"),
        (b"x-original-method", b"OPTIONS"),
        (b"x-forwarded-method", b"OPTIONS"),
        (b"x-forwarded-for", b"127.0.0.1"),
        (b"x-skip-auth", b"1"),
        (b"cookie", b"session=admin"),
        (b"upgrade", b"websocket"),
        (b"if-none-match", b'"x"'),
        (b"range", b"bytes=0-0"),
        (b"expect", b"100-continue"),
        (b"access-control-request-method", b"GET"),
    ],
    ids=lambda header: b" ".join(header).decode(),
)
@pytest.mark.parametrize("dialect", sorted(DIALECTS))
async def test_ghsa_5hvv_m4w4_gf6v_no_header_selects_an_allow(
    dialect: bytes, header: tuple[bytes, bytes]
) -> None:
    """R6: a User-Agent bypassed authentication at oauth2-proxy."""
    verifier = await started()
    for method in (b"GET", b"OPTIONS", b"HEAD"):
        answer = verifier.check(
            None, target=b"/verify/" + dialect, headers=[header], method=method
        )
        assert answer.status == 401
        assert verifier.last_reason() == "credential_missing"


async def test_the_dialect_decides_whether_a_refusal_has_a_body() -> None:
    verifier = await started()
    for name, dialect in DIALECTS.items():
        answer = verifier.check(None, target=b"/verify/" + name)
        assert bool(answer.body) is dialect.wants_body
    assert verifier.check(None, target=b"/verify/unknown").body == b""


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (b"/verify/unknown", "route_unknown"),
        (b"/verify/nginx/p/unknown", "policy_unknown"),
        (b"/verify/nginx/p/\xff", "policy_unknown"),
        (b"/healthz", "route_unknown"),
    ],
)
async def test_misconfigured_gateway_is_answered_503(
    target: bytes, reason: str
) -> None:
    """R38: it is not the token's fault."""
    verifier = await started()
    assert verifier.check(verifier.issuer.mint(), target=target).status == 503
    assert verifier.last_reason() == reason


async def test_scopes_are_403_and_credentials_401() -> None:
    verifier = await started(policies=STRICT)
    token = verifier.issuer.mint()
    assert verifier.check(token, target=b"/verify/nginx/p/strict").status == 403
    assert verifier.check(b"a.b.c").status == 401
    assert verifier.check(None, headers=[(b"authorization", b"Basic x")]).status == 401


# --- unexpected errors ---------------------------------------------------------------


def _fail(error: BaseException) -> Callable[..., NoReturn]:
    def fail() -> NoReturn:
        raise error

    return fail


@pytest.mark.parametrize("dependency", ["keys", "now", "boottime", "request_keys"])
@pytest.mark.parametrize(
    "error", [RuntimeError("t.o.k"), RecursionError(), MemoryError(), KeyError("x")]
)
async def test_cve_2021_32637_an_unexpected_error_is_a_refusal_and_counted(
    dependency: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """R25: 503 without detail, never a pass; the log names the type alone."""
    verifier = await started()
    # an unknown key reaches every dependency
    key = signing_key("unknown")
    token = verifier.issuer.mint(key=key)
    dependencies = gate_dependencies(
        verifier.trust, verifier.clock.now, verifier.clock.monotonic, log_rate=1_000
    )
    if dependency == "keys":
        verifier.trust.trust_keys(ISSUER, broken_key_set(error), 9e9)
    else:
        dependencies = dependencies._replace(**{dependency: _fail(error)})
    gate = Gate(
        verifier.policies,
        dependencies,
        lambda: FactCache(max_entries=10, max_bytes=1 << 20),
    )
    headers = [(b"authorization", b"Bearer " + token)]
    answer = gate.answer(PlainCheckRequest(b"GET", b"/verify/caddy", headers, True))
    assert answer.status == 503
    # A decision that fails has the dialect, and answers in its form.
    assert bool(answer.body) is (dependency == "keys")
    assert counts_of(gate) == {"internal_error": 1}
    assert b"t.o.k" not in answer.body
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "gate.internal_error"
    assert "t.o.k" not in caplog.text


# --- keys ----------------------------------------------------------------------------


async def test_unknown_key_is_requested_once_per_cool_down() -> None:
    """R19 (PyJWT CVE-2026-48524): a flood of unknown kids costs one fetch."""
    verifier = await started()
    fetches = len(verifier.issuer.fetches)
    tokens = [
        verifier.issuer.mint(key=signing_key("unknown"), jti=f"{n}") for n in (1, 2)
    ]
    for token in [*tokens, *tokens]:
        assert verifier.check(token).status == 401
        assert verifier.last_reason() == "kid_unknown"
    assert verifier.key_requests == 4
    assert await is_requested(verifier.keys)
    verifier.clock.advance(9.9)
    verifier.check(tokens[0])
    assert not await is_requested(verifier.keys)
    verifier.clock.advance(0.1)
    verifier.check(tokens[0])
    assert await is_requested(verifier.keys)
    # and no request fetched anything itself
    assert len(verifier.issuer.fetches) == fetches


async def test_only_an_unknown_key_is_requested() -> None:
    verifier = await started()
    token = verifier.issuer.mint()
    for unverified_token in (token, token[:-9], b"x", verifier.issuer.mint(aud="o")):
        verifier.check(unverified_token)
    assert verifier.key_requests == 0


async def test_a_new_key_counts_from_its_refresh_on() -> None:
    verifier = await started()
    new_key = verifier.issuer.rotate("second")
    token = verifier.issuer.mint(key=new_key)
    assert verifier.check(token).status == 401
    await verifier.keys.step()
    assert verifier.check(token).status == 200


async def test_a_withdrawn_key_ends_its_cached_tokens() -> None:
    """R27: facts are bound to the key set's version."""
    verifier = await started()
    token = verifier.issuer.mint()
    old_key = verifier.issuer.keys[0]
    assert verifier.check(token).status == 200
    verifier.issuer.rotate("second")
    verifier.issuer.withdraw(old_key)
    await verifier.keys.step()
    forget_counts(verifier.gate)
    assert verifier.check(token).status == 401
    assert verifier.last_reason() == "kid_unknown"


async def test_a_bad_signature_is_refused_again_without_looking() -> None:
    verifier = await started()
    good = verifier.issuer.mint()
    bad = good.rpartition(b".")[0] + b"." + b"A" * 342
    for _ in range(3):
        assert verifier.check(bad).status == 401
        assert verifier.last_reason() == "signature_invalid"
    (cache,) = verifier.gate.caches.values()
    assert cache.counts.misses == 1
    assert verifier.check(good).status == 200


# --- Envoy's appended path -----------------------------------------------------------


@pytest.mark.parametrize(
    "rest", [b"/", b"/orders", b"/p", b"/orders/p/lax", b"?p/lax", b"//p/lax"]
)
async def test_the_policy_must_be_named_behind_envoy_where_there_is_a_choice(
    rest: bytes,
) -> None:
    """R6, decision 0002: `/p/lax` may be the client's own path."""
    verifier = await started(policies=STRICT)
    token = verifier.issuer.mint()
    assert verifier.check(token, target=b"/verify/envoy" + rest).status == 503
    assert verifier.last_reason() == "policy_unnamed"


async def test_a_client_behind_envoy_cannot_choose_a_policy() -> None:
    """The request's own path is after the name that the gateway gave."""
    verifier = await started(policies=STRICT)
    token = verifier.issuer.mint()
    for path in (b"/p/lax", b"/p/lax/x", b"/../p/lax", b"/..%2fp/lax"):
        answer = verifier.check(token, target=b"/verify/envoy/p/strict" + path)
        assert answer.status == 403


async def test_bare_prefix_suffices_with_one_policy_without_requirements() -> None:
    verifier = await started()
    token = verifier.issuer.mint()
    assert verifier.check(token, target=b"/verify/envoy/orders?x=1").status == 200


async def test_the_bare_prefix_is_refused_with_rules() -> None:
    """Else `/p/default/public/x` of a client would be judged as `/public/x`."""
    verifier = await started(policies=RULES)
    token = verifier.issuer.mint()
    assert verifier.check(token, target=b"/verify/envoy/public/x").status == 503
    assert verifier.last_reason() == "policy_unnamed"
    named = b"/verify/envoy/p/default"
    assert verifier.check(token, target=named + b"/public/x").status == 200
    forget_counts(verifier.gate)
    answer = verifier.check(token, target=named + b"/p/default/public/x")
    assert answer.status == 403


@pytest.mark.parametrize("dialect", [b"caddy", b"nginx", b"traefik"])
async def test_a_client_cannot_choose_a_policy_by_its_query(dialect: bytes) -> None:
    """Caddy's `uri /verify/caddy` without `?` appends the client's query."""
    verifier = await started(policies=ADMIN_BY_DEFAULT)
    token = verifier.issuer.mint()
    for query in (b"?p/lax", b"?/p/lax", b"?policy=lax", b"?x&p/lax"):
        answer = verifier.check(token, target=b"/verify/" + dialect + query)
        assert answer.status == 403
