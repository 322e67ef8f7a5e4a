"""Lines of access logs: read strictly, or not used (docs/policies.md)."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from verifier.policies.access_log import (
    MAX_LINE,
    Identity,
    LoggedRequest,
    LogLineError,
    read_lines,
    read_request,
)

NGINX: dict[str, Any] = {
    "policy": "orders",
    "method": "GET",
    "host": "shop.example.com",
    "uri": "/orders/7",
    "credential": "1",
    "gate": "200",
    "decision": "allow",
    "client": "app%20one",
    "scope": "orders:read a%25b",
    "roles": "clerk",
}
ENVOY: dict[str, Any] = {
    "policy": "orders",
    "method": "GET",
    "host": "shop.example.com",
    "uri": "/orders/7",
    "status": 404,
    "details": "via_upstream",
    "decision": "allow",
    "client": "app%20one",
    "scope": "orders:read a%25b",
    "roles": "clerk",
}
IDENTITY = Identity(frozenset({"orders:read", "a%b"}), frozenset({"clerk"}), "app one")
ALLOWED = LoggedRequest(
    "orders",
    "GET",
    "shop.example.com",
    "/orders/7",
    200,
    "allow",
    IDENTITY,
    has_credential=True,
)


def line(members: dict[str, Any], **changes: Any) -> bytes:
    """Return a line; a change to `...` removes a member."""
    changed = {n: v for n, v in (members | changes).items() if v is not ...}
    return json.dumps(changed).encode()


def test_allow_is_read_with_its_identity() -> None:
    assert read_request(line(NGINX)) == ALLOWED
    assert read_request(line(ENVOY)) == ALLOWED._replace(has_credential=None)


@pytest.mark.parametrize(
    ("gate", "status"),
    [("401", 401), ("403", 403), ("503", 503), ("502, 403", 403), ("- : 401", 401)],
)
def test_refusal_of_nginx_has_the_last_status_and_no_identity(
    gate: str, status: int
) -> None:
    """What the log has as an identity there is not from the gate."""
    found = read_request(line(NGINX, gate=gate))
    assert found is not None
    assert (found.status, found.decision, found.identity) == (status, "", None)


@pytest.mark.parametrize(
    "gate", ["", "-", "502", "504, 499", "404", "1200", "20", None]
)
def test_request_without_an_answer_of_the_gate_is_passed_over(gate: Any) -> None:
    assert read_request(line(NGINX, gate=gate)) is None


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"details": "ext_authz_denied", "status": 401}, 401),
        ({"details": "ext_authz_denied", "status": 403}, 403),
        ({"details": "ext_authz_error", "status": 503}, 503),
        ({"details": "upstream_reset_before_response_started{x}"}, 200),
        ({"details": "no_healthy_upstream", "status": 503}, 200),
    ],
)
def test_envoy_says_which_part_of_it_answered(
    changes: dict[str, Any], status: int
) -> None:
    found = read_request(line(ENVOY, **changes))
    assert found is not None
    assert found.status == status
    assert (found.identity is None) is (status != 200)


@pytest.mark.parametrize(
    "changes",
    [
        {"details": "path_normalization_failed", "status": 400},
        {"details": "http1.codec_error", "status": 400},
        {"details": None, "status": 0},
        {"details": "via_upstream", "decision": None},
        {"details": "ext_authz_denied", "status": 404},
    ],
)
def test_decision_that_a_client_wrote_does_not_count(changes: dict[str, Any]) -> None:
    """Envoy logs what it refuses before its filters with the client's own headers."""
    assert read_request(line(ENVOY, **changes)) is None


def test_anonymous_allow_has_no_identity() -> None:
    members = {"decision": "allow-anonymous", "client": ..., "scope": ..., "roles": ...}
    found = read_request(line(NGINX, credential="0", **members))
    assert found is not None
    assert (found.identity, found.has_credential) == (None, False)


def test_query_is_cut_off_and_further_members_are_ignored() -> None:
    found = read_request(line(NGINX, uri="/orders/7?token=secret#x", time=[1, {}]))
    assert found == ALLOWED


def test_policy_is_named_by_the_line_or_else_by_the_caller() -> None:
    for missing in (..., "", None, "-"):
        found = read_request(line(NGINX, policy=missing), "office")
        assert found is not None
        assert found.policy == "office"
        with pytest.raises(LogLineError, match="policy: is missing"):
            read_request(line(NGINX, policy=missing))
    found = read_request(line(NGINX), "office")
    assert found == ALLOWED


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "no JSON object"),
        (b"GET / HTTP/1.1", "no JSON object"),
        (b"[]", "no JSON object"),
        (line(NGINX)[:-1], "no JSON object"),
        (line(NGINX) + b"{}", "no JSON object"),
        (line(NGINX)[:-1] + b',"gate":"403"}', "names a member twice"),
        (line(NGINX).replace(b"/orders", b"/\xff"), "no JSON object"),
        (line(NGINX).replace(b"/orders", b"/\x00"), "no JSON object"),
        (b"\xef\xbb\xbf" + line(NGINX), "no JSON object"),
        (line(NGINX).replace(b'"200"', b"NaN"), "no JSON object"),
        (line(NGINX).replace(b"/orders", b"/\\ud800"), "no JSON object"),
        (b'{"a":' + b"[" * 60_000 + b"]" * 60_000 + b"}", "no JSON object"),
        (None, "longer than 131072 bytes"),
        (line(NGINX, gate=...), "gate: is missing, or for Envoy status and details"),
        (line(ENVOY, details=...), "gate: is missing"),
        (line(NGINX, gate=True), "gate: must be text"),
        (line(NGINX, gate=2.5), "gate: must be text"),
        (line(NGINX, method=...), "method: is missing"),
        (line(NGINX, method=["GET"]), "method: must be text"),
        (line(NGINX, uri=""), "uri: is missing"),
        (line(NGINX, host={}), "host: must be text"),
        (line(NGINX, decision=""), "decision: is missing beside an allow"),
        (line(NGINX, client=...), "client: is missing beside an allow"),
        (line(NGINX, scope=...), "scope: is missing beside an allow"),
        (line(NGINX, roles=...), "roles: is missing beside an allow"),
        (line(NGINX, scope="%ff"), "scope: is not UTF-8"),
        (line(NGINX, credential="Bearer eyJ"), 'credential: must be "0" or "1"'),
    ],
)
def test_line_that_cannot_be_used_is_refused_without_its_content(
    text: bytes | None, reason: str
) -> None:
    with pytest.raises(LogLineError) as refused:
        read_request(text)
    assert reason in str(refused.value)
    for part in ("orders", "eyJ", "HTTP"):
        assert part not in str(refused.value)


def test_lines_are_read_in_bounded_pieces() -> None:
    class Counting(io.BytesIO):
        largest = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            found = super().readline(size)
            self.largest = max(self.largest, len(found))
            return found

    fits, long = b"x" * MAX_LINE, b"y" * (5 * MAX_LINE + 3)
    log = Counting(b"\n".join([b"a\r", fits, long, b"", b"b", long]))
    assert list(read_lines(log)) == [b"a", fits, None, b"", b"b", None]
    assert log.largest <= MAX_LINE + 1
