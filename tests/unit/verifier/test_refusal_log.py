"""One line per refusal: its fields, forbidden fields, and the number of lines."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest

from tests.support.gatehouse_verifier import (
    SimulatedVerifier,
    broken_key_set,
    started,
)
from tests.support.tokens import ISSUER, signing_key
from verifier.check.decision import Refused
from verifier.check.denials import DenyReason
from verifier.check.forward_auth import DIALECTS
from verifier.check.refusal_log import RefusalLog
from verifier.check.trust import Trust

POLICIES = """
[policies.orders]
required_scopes = ["admin"]
"""
TRACE = b"0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = b"00-" + TRACE + b"-b7ad6b7169203331-01"


@pytest.fixture
async def verifier(caplog: pytest.LogCaptureFixture) -> SimulatedVerifier:
    verifier = await started(policies=POLICIES, refusal_log_rate=10)
    caplog.set_level(logging.DEBUG)
    caplog.clear()
    return verifier


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return the fields of each refusal's line since the last call, except its id."""
    found = [
        vars(record)["fields"]
        for record in caplog.records
        if record.getMessage() == "gate.refused"
    ]
    caplog.clear()
    for fields in found:
        assert re.fullmatch("[0-9a-f]{16}", fields.pop("decision_id"))
    return found


async def test_a_refusal_has_one_line_and_an_allow_has_none(
    verifier: SimulatedVerifier, caplog: pytest.LogCaptureFixture
) -> None:
    """R35: the line names reason, policy, dialect, request and key, and nothing
    else.
    """
    token = verifier.issuer.mint()
    headers = [(b"x-request-id", b"a1-B.2_c"), (b"traceparent", TRACEPARENT)]
    assert verifier.check(token, headers=headers).status == 200
    assert caplog.records == []
    target = b"/verify/envoy/p/orders/secret/path?secret=query"
    assert verifier.check(token, target=target, headers=headers).status == 403
    (line,) = lines(caplog)
    assert line == {
        "reason": "scope_insufficient",
        "policy": "orders",
        "dialect": "envoy",
        "request_id": "a1-B.2_c",
        "trace_id": TRACE.decode(),
        "issuer": "own",
        "kid": verifier.issuer.keys[0].kid,
    }


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
async def test_every_dialect_has_the_line(
    verifier: SimulatedVerifier, caplog: pytest.LogCaptureFixture, dialect: bytes
) -> None:
    verifier.check(None, target=b"/verify/" + dialect + b"/p/orders")
    assert lines(caplog) == [
        {
            "reason": "credential_missing",
            "policy": "orders",
            "dialect": dialect.decode(),
        }
    ]


@pytest.mark.parametrize("case", ["kid", "signature", "garbage", "scheme", "twice"])
async def test_a_strangers_text_is_in_no_line(
    verifier: SimulatedVerifier, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    """R22, R35: the key id only if it is ours; the token and its claims never."""
    ours = verifier.issuer.keys[0].kid
    good = verifier.issuer.mint(sub="jane")
    forged = good.rpartition(b".")[0] + b"." + b"A" * 342
    tokens = {
        "kid": verifier.issuer.mint(key=signing_key("unknown"), sub="jane"),
        "signature": forged,
        "garbage": b"jane.jane.jane",
        "scheme": None,
        "twice": good,
    }
    extra = [(b"authorization", b"Basic amFuZTpqYW5l")]
    headers = extra if case in ("scheme", "twice") else []
    verifier.check(tokens[case], headers=headers)
    (line,) = lines(caplog)
    assert line.get("kid") == (ours if case == "signature" else None)
    written = str(line)
    stranger = signing_key("unknown").kid
    for text in (stranger, "jane", "amFuZ", good.decode()[:20]):
        assert text not in written


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/verify/unknown", {"reason": "route_unknown"}),
        (b"/verify/nginx/p/mine", {"reason": "policy_unknown", "dialect": "nginx"}),
        (
            b"/verify/envoy/p/mine/path?q",
            {"reason": "policy_unknown", "dialect": "envoy"},
        ),
        (b"/verify/envoy/path?q", {"reason": "policy_unnamed", "dialect": "envoy"}),
    ],
)
async def test_a_policy_that_is_not_ours_is_not_named(
    verifier: SimulatedVerifier,
    caplog: pytest.LogCaptureFixture,
    target: bytes,
    expected: dict[str, str],
) -> None:
    """Behind `/verify/envoy` it may be the client's own path (decision 0002)."""
    verifier.check(None, target=target)
    assert lines(caplog) == [expected]


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b" ", b"a b", b'a"b', b"a\nb", b"a/b", b"\xc3\xa4", b"a\x1b[2J", b"a,b"),
        *(b"a" * 129, b"{}", b"a\n"),
    ],
)
async def test_a_request_id_of_another_form_is_left_out(
    verifier: SimulatedVerifier, caplog: pytest.LogCaptureFixture, value: bytes
) -> None:
    verifier.check(None, headers=[(b"x-request-id", value)])
    (line,) = lines(caplog)
    assert "request_id" not in line


@pytest.mark.parametrize(
    "value",
    [
        b"",
        TRACE,
        TRACEPARENT.upper(),
        TRACEPARENT + b"-01",
        TRACEPARENT + b"\n",
        b" " + TRACEPARENT,
        b"01" + TRACEPARENT[2:],
        b"ff" + TRACEPARENT[2:],
        TRACEPARENT.replace(TRACE, b"0" * 32),
        TRACEPARENT.replace(b"b7ad6b7169203331", b"0" * 16),
        TRACEPARENT.replace(b"0af7", b"0ag7"),
    ],
)
async def test_a_traceparent_of_another_form_is_left_out(
    verifier: SimulatedVerifier, caplog: pytest.LogCaptureFixture, value: bytes
) -> None:
    """W3C Trace Context, section 3.2.2."""
    verifier.check(None, headers=[(b"traceparent", value)])
    (line,) = lines(caplog)
    assert "trace_id" not in line


async def test_a_repeated_id_is_left_out(
    verifier: SimulatedVerifier, caplog: pytest.LogCaptureFixture
) -> None:
    """R4: which of the two is the gateway's is not to be seen."""
    headers = [(b"x-request-id", b"a"), (b"traceparent", TRACEPARENT)]
    verifier.check(None, headers=headers * 2)
    (line,) = lines(caplog)
    assert line.keys() == {"reason", "policy", "dialect"}


async def test_nothing_is_read_of_an_untrusted_request(
    verifier: SimulatedVerifier, caplog: pytest.LogCaptureFixture
) -> None:
    """R1: only a gateway of ours may name the request it is about."""
    headers = [(b"x-request-id", b"a"), (b"traceparent", TRACEPARENT)]
    token = verifier.issuer.mint()
    verifier.check(token, headers=headers, peer_is_trusted=False)
    (line,) = lines(caplog)
    assert line == {
        "reason": "peer_untrusted",
        "policy": "default",
        "dialect": "nginx",
    }


async def test_a_refused_connection_has_a_line(
    verifier: SimulatedVerifier, caplog: pytest.LogCaptureFixture
) -> None:
    assert verifier.gate.refuse_connection().status == 503
    assert lines(caplog) == [{"reason": "overloaded"}]
    assert verifier.last_reason() == "overloaded"


# --- how many ------------------------------------------------------------------------


async def test_a_flood_of_refusals_has_a_bounded_number_of_lines(
    verifier: SimulatedVerifier, caplog: pytest.LogCaptureFixture
) -> None:
    """R47: 20 at once, then 10 a second; the next line has the number without one."""
    refusals = verifier.gate.refusals
    written, asked = 0, 0
    for _ in range(40):
        for _ in range(50):
            verifier.check(None)
        asked += 50
        found = lines(caplog)
        written += len(found)
        counted = sum(line.get("suppressed", 0) for line in found)
        assert counted <= refusals.suppressed
        verifier.clock.advance(0.5)
        refusals.refill(verifier.clock.monotonic())
    assert written == 20 + 39 * 5
    assert refusals.suppressed == asked - written
    verifier.check(None)
    (line,) = lines(caplog)
    assert line["suppressed"] == 50 - 5
    verifier.check(None)
    (line,) = lines(caplog)
    assert "suppressed" not in line


async def test_idle_time_saves_no_more_than_two_seconds_of_lines(
    verifier: SimulatedVerifier, caplog: pytest.LogCaptureFixture
) -> None:
    verifier.clock.advance(86_400)
    verifier.gate.refusals.refill(verifier.clock.monotonic())
    for _ in range(50):
        verifier.check(None)
    assert len(lines(caplog)) == 20


@pytest.mark.parametrize("step", [0.01, 0.07, 0.5, 3.0])
def test_the_rate_holds_however_often_it_is_refilled(step: float) -> None:
    now = 5.0
    log = RefusalLog(1, Trust(ISSUER), now)
    stale = Refused(DenyReason.STALE)
    for _ in range(2):
        log.note(stale, None, b"")
    assert log.suppressed == 0
    noted = 0
    while now < 65.0:
        now += step
        log.refill(now)
        for _ in range(3):
            log.note(stale, None, b"")
            noted += 1
    most = 60 + 1
    assert noted - most - 2 <= log.suppressed
    if step <= 1:
        assert log.suppressed <= noted - 59


async def test_a_clock_that_stops_or_goes_back_adds_no_line() -> None:
    log = RefusalLog(10, Trust(ISSUER), 100.0)
    for now in (100.0, 50.0, 100.05):
        log.refill(now)
    for _ in range(30):
        log.note(Refused(DenyReason.STALE), None, b"")
    assert log.suppressed == 10


async def test_rate_0_writes_no_line_and_counts_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    verifier = await started(refusal_log_rate=0)
    caplog.set_level(logging.DEBUG)
    verifier.clock.advance(9)
    verifier.gate.refusals.refill(verifier.clock.monotonic())
    for _ in range(3):
        assert verifier.check(None).status == 401
    assert lines(caplog) == []
    assert verifier.gate.refusals.suppressed == 3


async def test_a_line_that_cannot_be_made_changes_no_answer(
    verifier: SimulatedVerifier,
) -> None:
    """R25: the refusal stands; the line counts as suppressed."""
    broken = Trust(ISSUER)
    broken.trust_keys(ISSUER, broken_key_set(RuntimeError()), 9e9)
    log = verifier.gate.refusals = RefusalLog(10, broken, 0.0)
    assert verifier.check(verifier.issuer.mint()[:-9]).status == 401
    assert log.suppressed == 1
