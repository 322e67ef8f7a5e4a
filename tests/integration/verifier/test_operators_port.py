"""The operators' port: readiness, state, and why a token passes or not."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from shared.feed import EntryKind
from shared.outgoing.failures import FailureKind
from tests.support.departing_client import post_and_go
from tests.support.gatehouse_verifier import unstarted
from tests.support.issuer_simulator import JWKS_URL
from tests.support.operators_port import Operator, operating, state_of
from verifier.sync.fetch import FetchError
from verifier.sync.source_report import Source, SourceReport

POLICIES = """
[policies.orders]
required_scopes = ["orders:read"]
[[policies.orders.rules]]
path = "/orders/**"
"""


@pytest.fixture
async def operator() -> AsyncIterator[Operator]:
    async with operating(unstarted(policies=POLICIES)) as running:
        yield running


async def test_readiness_follows_keys_and_feed(operator: Operator) -> None:
    verifier = operator.verifier
    operator.board.write(1, state_of(verifier, 2))
    assert await operator.ready() == (503, ["no_keys", "stale"])
    assert (await operator.client.get("/healthz")).status_code == 200
    await verifier.sync()
    operator.board.write(1, state_of(verifier, 2))
    assert await operator.ready() == (200, [])
    verifier.clock.advance(31)
    assert await operator.ready() == (503, ["stale"])


async def test_one_worker_that_is_not_ready_makes_the_verifier_not_ready(
    operator: Operator,
) -> None:
    """A gateway cannot choose which worker answers it."""
    verifier = operator.verifier
    await verifier.sync()
    assert await operator.ready() == (503, ["worker_missing"])
    ready = state_of(verifier, 2)
    for other, reason in (
        (ready._replace(fresh_until=verifier.clock.monotonic()), "stale"),
        (ready._replace(keys_until=verifier.clock.monotonic()), "no_keys"),
        (ready._replace(is_loading=True), "loading"),
        (ready._replace(has_no_descriptors=True), "descriptors_exhausted"),
        (ready._replace(pid=0), "worker_missing"),
    ):
        operator.board.write(1, other)
        assert await operator.ready() == (503, [reason])
    operator.board.write(1, ready)
    assert await operator.ready() == (200, [])


async def test_dropped_log_lines_of_any_worker_are_a_warning_and_no_reason(
    operator: Operator,
) -> None:
    """R47: a log that is not read must not take the verifier out of traffic."""
    await operator.verifier.sync()
    other = state_of(operator.verifier, 2)
    for has_dropped, warnings in ((False, []), (True, ["log_lines_dropped"])):
        operator.board.write(1, other._replace(has_dropped_lines=has_dropped))
        answer = await operator.client.get("/readyz")
        assert answer.status_code == 200
        assert answer.json() == {"ready": True, "reasons": [], "warnings": warnings}


async def test_status_shows_position_age_and_epoch(operator: Operator) -> None:
    operator.verifier.issuer.revoke(EntryKind.SID, "other")
    await operator.verifier.sync()
    operator.verifier.clock.advance(7)
    operator.board.write(1, state_of(operator.verifier, 4711))
    status = (await operator.client.get("/status")).json()
    assert status["ready"] is True
    assert status["feed"]["position"] == status["feed"]["head"] == 1
    assert status["feed"]["epoch"] == operator.verifier.issuer.epoch
    assert status["feed"]["age"] == 7
    assert status["feed"]["fresh_for"] == 23
    assert status["revocations"] == 1
    assert status["policies"] == ["default", "orders"]
    assert status["compiled"] is ("GATEHOUSE_TEST_COMPILED" in os.environ)
    assert status["feed"]["staleness"] == "fresh"
    assert status["feed"]["last_canary_delay"] is None
    assert status["disk_copy"] == {"state": "off", "bytes": 0, "error": ""}
    assert [worker["pid"] for worker in status["workers"]] == [1, 4711]
    assert status["workers"][1]["position"] == 1
    assert status["workers"][1]["fresh_for"] == 23


async def test_r59_status_shows_the_last_failure_of_each_source(
    operator: Operator,
) -> None:
    """Also when the source answers again: an operator comes later."""
    verifier = operator.verifier
    status = (await operator.client.get("/status")).json()
    assert (status["feed"]["last_failure"], status["keys"]["last_failure"]) == (
        None,
        None,
    )
    source = Source("jwks", JWKS_URL, "VERIFIER_JWKS_URL")
    error = FetchError("nothing listens", FailureKind.REFUSED, url=JWKS_URL)
    report = SourceReport(source, verifier.clock.monotonic)
    report.failed(verifier.keys.status, error)
    verifier.clock.advance(7)
    await verifier.sync()
    status = (await operator.client.get("/status")).json()
    assert status["feed"]["last_failure"] is None
    assert status["keys"]["last_error"] == ""
    assert status["keys"]["last_failure"] == {
        "age": 7,
        "kind": "refused",
        "url": JWKS_URL,
        "status": None,
        "error": "nothing listens",
        "setting": "VERIFIER_JWKS_URL",
    }


async def test_explain_gives_the_reason_and_only_verified_claims(
    operator: Operator,
) -> None:
    await operator.verifier.sync()
    token = operator.verifier.issuer.mint().decode()
    good = await operator.explain(token=token)
    assert (good["decision"], good["reason"]) == ("allow", "")
    assert good["claims"]["sid"] == "sid-1"
    bad = await operator.explain(token=token[:-8] + "AAAAAAAA")
    assert (bad["decision"], bad["reason"]) == ("deny", "signature_invalid")
    assert "claims" not in bad


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"policy": "orders", "method": "GET", "uri": "/orders/1"}, ""),
        ({"policy": "orders"}, "forwarded_missing"),
        ({"policy": "orders", "method": "GET", "uri": "/x"}, "rule_missing"),
        ({"policy": "orders", "method": "GET", "uri": "/a/../b"}, "path_ambiguous"),
        ({"policy": "lax"}, "policy_unknown"),
        # No check path can name these.
        ({"policy": ""}, "policy_unknown"),
        ({"policy": "orders/p"}, "policy_unknown"),
        # The gate refuses a target with a space (R4), and so does this.
        ({"policy": "orders", "method": "GET", "uri": "/x y"}, "forwarded_repeated"),
    ],
    ids=[
        *("allowed", "no-method", "no-rule", "ambiguous", "unknown-policy"),
        *("empty-policy", "slash-in-policy", "space-in-uri"),
    ],
)
async def test_explain_applies_the_policy(
    operator: Operator, asked: dict[str, str], reason: str
) -> None:
    await operator.verifier.sync()
    token = operator.verifier.issuer.mint().decode()
    assert (await operator.explain(token=token, **asked))["reason"] == reason


async def test_explain_sees_a_revocation(operator: Operator) -> None:
    token = operator.verifier.issuer.mint().decode()
    operator.verifier.issuer.revoke(EntryKind.SID, "sid-1")
    await operator.verifier.sync()
    assert (await operator.explain(token=token))["reason"] == "revoked_sid"


async def test_explain_without_a_token_is_a_request_without_a_credential(
    operator: Operator,
) -> None:
    """R61: so a path that needs none can be explained, too."""
    await operator.verifier.sync()
    answer = (await operator.client.post("/explain", content=b"{}")).json()
    assert answer["reason"] == "credential_missing"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"token": "x", "policy": "a", "policy": "b"}',
        b'{"token": 1}',
        b'{"token": "s3cret", "more": "s3cret"}',
        b'{"token": NaN}',
        b'{"token": "\\ud800"}',
        b"\xff",
    ],
)
async def test_bad_input_is_400_and_nothing_is_echoed(
    operator: Operator, body: bytes
) -> None:
    """R35."""
    answer = await operator.client.post("/explain", content=body)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert "s3cret" not in answer.text


async def test_a_client_that_closes_during_its_request_is_no_error(
    operator: Operator,
) -> None:
    """R44: as an error it would be a traceback in the log for each such client."""
    sent = await post_and_go(operator.client, "/explain")
    assert sent[0]["status"] == 400


async def test_a_large_body_is_413(operator: Operator) -> None:
    answer = await operator.client.post("/explain", content=b"x" * 20_000)
    assert answer.status_code == 413


async def test_a_token_is_in_no_answer_of_this_port(operator: Operator) -> None:
    """R35."""
    await operator.verifier.sync()
    token = operator.verifier.issuer.mint().decode()
    operator.verifier.check(token.encode())
    shown = [
        (await operator.client.get(path)).text
        for path in ("/metrics", "/status", "/readyz", "/healthz")
    ]
    shown.append(str(await operator.explain(token=token)))
    assert not any(token in text for text in shown)


@pytest.mark.parametrize(
    ("seconds", "policy", "reason", "status"),
    [
        (0, "default", "", 200),
        (31, "default", "stale", 503),
        (31, "lax", "", 200),
        (86_401, "default", "no_keys", 503),
        (86_401, "lax", "no_keys", 503),
    ],
)
async def test_explain_decides_as_the_gate_about_stale_revocations(
    seconds: int, policy: str, reason: str, status: int
) -> None:
    """R66: it answered allow where the gate answered 503."""
    verifier = unstarted(policies='[policies.lax]\non_stale = "allow"\n')
    await verifier.sync()
    verifier.clock.advance(seconds)
    token = verifier.issuer.mint()
    target = f"/verify/nginx/p/{policy}".encode()
    async with operating(verifier) as operator:
        said = await operator.explain(token=token.decode(), policy=policy)
    assert (said["reason"], said["status"]) == (reason, status)
    assert said["stale"] is (seconds > 30)
    assert verifier.check(token, target=target).status == status
    assert verifier.last_reason() == reason


async def test_explain_shows_that_there_was_never_a_list() -> None:
    verifier = unstarted(policies='[policies.lax]\non_stale = "allow"\n')
    await verifier.keys.step()
    async with operating(verifier) as operator:
        token = verifier.issuer.mint().decode()
        said = await operator.explain(token=token, policy="lax")
    assert (said["reason"], said["status"]) == ("stale", 503)
