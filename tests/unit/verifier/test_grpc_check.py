"""A check over gRPC is the same decision as one over HTTP, in Envoy's messages."""

from __future__ import annotations

import logging
from typing import Any, cast

import orjson
import pytest

from tests.support.gatehouse_verifier import SimulatedVerifier, broken_key_set, started
from tests.support.grpc_checks import Verdict, check_message, read_verdict
from tests.support.tokens import ISSUER
from verifier.check.answers import IDENTITY_HEADERS, NOT_FOUND, Answer, document_answer
from verifier.check.denials import DenyReason
from verifier.check.gate import Gate
from verifier.wire.connections import trust_peers
from verifier.wire.grpc.budgets import HEADERS, MESSAGE_BYTES
from verifier.wire.grpc.questions import ENVOY_ROUTE
from verifier.wire.grpc.responses import REFUSAL, encode_answer
from verifier.wire.grpc.service import Authorization, trust_peer_names

IDENTITY = {name.decode().lower() for name in IDENTITY_HEADERS}
RULES = """
[policies.default]
[policies.open]
[[policies.open.rules]]
path = "/public/**"
public = true
[policies.shop]
[[policies.shop.rules]]
hosts = ["admin.test"]
required_roles = ["admin"]
[[policies.shop.rules]]
path = "/orders/**"
methods = ["GET"]
required_scopes = ["orders:read"]
"""


def ask(verifier: SimulatedVerifier, message: bytes) -> Verdict:
    return read_verdict(Authorization(verifier.gate).check(message))


async def test_a_good_token_passes_with_its_identity_and_without_the_token() -> None:
    """R9, R10, R11."""
    verifier = await started()
    verdict = ask(verifier, check_message(verifier.issuer.mint()))
    assert verdict.lets_pass
    over_http = verifier.check(verifier.issuer.mint(), target=b"/verify/envoy/x")
    expected = {n.decode().lower(): v.decode() for n, v in over_http.headers}
    del expected["content-length"]
    assert verdict.headers == expected
    assert verdict.headers.keys() == IDENTITY
    assert verdict.removed == ("authorization",)


async def test_identity_headers_without_a_value_are_sent() -> None:
    """R10: else the application would read one that the client wrote."""
    verifier = await started()
    verdict = ask(verifier, check_message(verifier.issuer.mint(username=None)))
    assert verdict.headers["x-auth-user"] == ""


async def test_r11_every_spelling_of_an_identity_header_is_removed() -> None:
    verifier = await started()
    sent = {
        "x-auth-user": "mallory",
        "x_auth_user": "mallory",
        "x-auth_user": "mallory",
        "x.auth~user": "mallory",
        "x-auth": "mallory",
        "x-authentic": "stays",
        "x-auth-shoe-size": "46",
        "x-mine": "stays",
    }
    token = verifier.issuer.mint()
    verdict = ask(verifier, check_message(token, headers=sent))
    assert verdict.headers["x-auth-user"] == "alice"
    forged = {"x_auth_user", "x-auth_user", "x.auth~user", "x-auth", "x-auth-shoe-size"}
    assert set(verdict.removed) == {"authorization"} | forged


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (check_message(), DenyReason.CREDENTIAL_MISSING),
        (check_message(b"a.b.c"), DenyReason.TOKEN_MALFORMED),
        (check_message(b"x", policy="nowhere"), DenyReason.POLICY_UNKNOWN),
        (check_message(b"x", policy=""), DenyReason.ROUTE_UNKNOWN),
        (check_message(b"x", policy="default/p/open"), DenyReason.ROUTE_UNKNOWN),
        (check_message(b"x", policy="default?"), DenyReason.ROUTE_UNKNOWN),
        (check_message(b"x", policy=None), DenyReason.POLICY_UNNAMED),
        (check_message(b"x", policy=None, path="/p/nowhere/"), DenyReason.POLICY_UNKNOWN),
        (check_message(b"x", path=""), DenyReason.FORWARDED_MISSING),
        (check_message(b"x", method=""), DenyReason.FORWARDED_MISSING),
        (b"", DenyReason.FORWARDED_MISSING),
        (b"\xff", DenyReason.FORWARDED_MALFORMED),
        (b"\x0a\x04\x22\x02\x12\x00", DenyReason.FORWARDED_MISSING),
        (check_message(b"x", host="a", headers={"host": "b"}), DenyReason.FORWARDED_REPEATED),
        (check_message(b"x" * MESSAGE_BYTES), DenyReason.FORWARDED_MALFORMED),
    ],
)  # fmt: skip
async def test_what_is_no_check_is_refused(message: bytes, reason: DenyReason) -> None:
    verifier = await started(policies=RULES)
    verdict = ask(verifier, message)
    assert not verdict.lets_pass
    assert verifier.last_reason() == reason
    assert orjson.loads(verdict.body)["status"] == verdict.status


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"path": "*"}, 400),
        ({"path": "/a#/b"}, 400),
        ({"path": "/é"}, 400),
        # Put behind the name as it is, it would choose another policy.
        ({"path": "en/public/a", "policy": "op"}, 400),
        ({"path": "/" + "a" * 8_192}, 414),
        ({"lines": [("x", b"")] * (HEADERS + 1)}, 431),
    ],
)
async def test_a_faulty_request_is_the_clients_fault(
    fields: dict[str, Any], status: int
) -> None:
    """As on the HTTP port: neither 401 nor 503, after which clients try again."""
    verifier = await started(policies=RULES)
    verdict = ask(verifier, check_message(verifier.issuer.mint(), **fields))
    assert (verdict.lets_pass, verdict.status) == (False, status)


@pytest.mark.parametrize("credential", [b"Bearer x", b""])
async def test_r4_two_credentials_are_refused(credential: bytes) -> None:
    """As two lines, joined by a comma as Envoy does, and in both forms at once."""
    verifier = await started()
    token = verifier.issuer.mint()
    good = ("authorization", b"Bearer " + token)
    joined = {"authorization": f"Bearer {token.decode()},{credential.decode()}"}
    for message in (
        check_message(lines=[good, ("authorization", credential)]),
        check_message(lines=[good, ("Authorization", credential)]),
        check_message(headers=joined),
        check_message(token, lines=[("authorization", credential)]),
    ):
        verdict = ask(verifier, message)
        assert (verdict.lets_pass, verdict.status) == (False, 401)
        assert verifier.last_reason() == DenyReason.CREDENTIAL_REPEATED
    assert ask(verifier, check_message(lines=[good])).lets_pass


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"policy": "open", "path": "/public/a"}, ""),
        ({"policy": "open", "path": "/private"}, DenyReason.RULE_MISSING),
        ({"policy": "shop", "path": "/orders/7?x=1"}, ""),
        ({"policy": "shop", "path": "/orders/%2e%2e/7"}, DenyReason.PATH_AMBIGUOUS),
        ({"policy": "shop", "path": "/orders/7", "method": "PUT"}, DenyReason.RULE_MISSING),
        ({"policy": "shop", "host": "admin.test"}, DenyReason.ROLE_MISSING),
        ({"policy": "shop", "host": ""}, DenyReason.FORWARDED_MISSING),
        ({"policy": "shop", "host": "a b"}, DenyReason.FORWARDED_MALFORMED),
        # The client's path chooses no other policy than the route's.
        ({"policy": "shop", "path": "/p/open/public/a"}, DenyReason.RULE_MISSING),
    ],
)  # fmt: skip
async def test_rules_see_method_host_and_path(
    changes: dict[str, Any], reason: str
) -> None:
    """R8."""
    verifier = await started(policies=RULES)
    verdict = ask(verifier, check_message(verifier.issuer.mint(), **changes))
    assert verifier.last_reason() == reason
    assert verdict.lets_pass == (reason == "")


def test_a_message_is_the_same_in_whatever_order_its_headers_were_written() -> None:
    """Else processes that run side by side find tests of different names."""
    names = [f"name-{n}" for n in range(20)]
    assert check_message(headers=dict.fromkeys(names, "a")) == check_message(
        headers=dict.fromkeys(reversed(names), "a")
    )


async def test_without_a_policy_the_only_one_without_rules_decides() -> None:
    """As for the HTTP dialect (decision 0002)."""
    verifier = await started()
    token = verifier.issuer.mint()
    assert ask(verifier, check_message(token, policy=None)).lets_pass


async def test_a_refusal_is_that_of_the_http_dialect() -> None:
    verifier = await started()
    verdict = ask(verifier, check_message(b"a.b.c"))
    over_http = verifier.check(b"a.b.c", target=b"/verify/envoy/orders")
    expected = {n.decode().lower(): v.decode() for n, v in over_http.headers}
    for name in ("content-length", "x-auth-decision-id"):
        del expected[name]
    assert len(verdict.headers.pop("x-auth-decision-id")) == 16
    assert verdict.headers == expected
    assert (verdict.status, verdict.body) == (401, over_http.body.decode())


async def test_r38_a_stale_verifier_answers_503_with_retry_after() -> None:
    verifier = await started()
    token = verifier.issuer.mint()
    verifier.clock.advance(31)
    verdict = ask(verifier, check_message(token))
    assert (verdict.status, verdict.headers["retry-after"]) == (503, "5")


async def test_a_peer_that_is_not_trusted_is_refused_unread() -> None:
    """R1."""
    verifier = await started()
    verdict = read_verdict(Authorization(verifier.gate).refuse_peer())
    assert (verdict.lets_pass, verdict.status) == (False, 503)
    assert verifier.last_reason() == DenyReason.PEER_UNTRUSTED


@pytest.mark.parametrize("reason", list(DenyReason))
async def test_no_reason_becomes_an_allow(reason: DenyReason) -> None:
    verifier = await started()
    for route in (None, ENVOY_ROUTE):
        answer = verifier.gate.refuse(reason, route)
        verdict = read_verdict(encode_answer(answer))
        assert (verdict.lets_pass, verdict.status) == (False, answer.status)


@pytest.mark.parametrize(
    "answer",
    [
        NOT_FOUND,
        document_answer(b"{}"),
        Answer(200, b"HTTP/1.1 200 OK\r\n\r\n"),
        Answer(0, b"\r\n"),
        Answer(204, b"HTTP/1.1 204 No Content\r\n\r\n"),
    ],
)
def test_an_answer_that_is_no_allow_is_a_refusal(answer: Answer) -> None:
    """A document, which has the status 200 as well, lets no request pass."""
    verdict = read_verdict(encode_answer(answer))
    assert (verdict.lets_pass, verdict.status) == (False, 503)


class FaultyGate:
    """Raises, or gives an answer that cannot be written."""

    def __init__(self, answer: Answer | None) -> None:
        self._answer = answer

    def answer(self, *_: object) -> Answer:
        if self._answer is None:
            raise RuntimeError("secret")
        return self._answer

    refuse = answer


@pytest.mark.parametrize("answer", [None, Answer(401, b"\r\n\r\n", b"\xff")])
def test_a_fault_of_ours_is_a_refusal_without_detail(
    answer: Answer | None, caplog: pytest.LogCaptureFixture
) -> None:
    """R25: in the decision, and in what comes after it."""
    authorization = Authorization(cast(Gate, FaultyGate(answer)))
    with caplog.at_level(logging.ERROR):
        for encoded in (
            authorization.check(check_message(b"x")),
            authorization.check(b"\xff"),
            authorization.refuse_peer(),
        ):
            assert encoded == REFUSAL
    logged = str([record.__dict__ for record in caplog.records])
    assert "grpc.internal_error" in logged
    assert "secret" not in logged


async def test_r25_a_fault_in_the_decision_is_refused() -> None:
    verifier = await started()
    verifier.trust.trust_keys(ISSUER, broken_key_set(RuntimeError("secret")), 9e9)
    verdict = ask(verifier, check_message(verifier.issuer.mint()))
    assert (verdict.lets_pass, verdict.status) == (False, 503)
    assert verifier.last_reason() == DenyReason.INTERNAL_ERROR


def test_the_beginning_of_every_response_is_a_refusal() -> None:
    assert read_verdict(REFUSAL) == Verdict(False, 503, {})


@pytest.mark.parametrize(
    ("peer", "is_gateway"),
    [
        ("ipv4:127.0.0.1:5000", True),
        ("ipv4:10.0.0.1:5000", False),
        ("ipv6:%5B::1%5D:5000", True),
        ("ipv6:%5B::ffff:127.0.0.1%5D:5000", True),
        ("ipv6:%5B::ffff:10.0.0.1%5D:5000", False),
        ("ipv6:%5B2001:db8::1%5D:5000", False),
        ("ipv4:127.0.0.1", False),
        ("ipv4:", False),
        ("ipv4:localhost:1", False),
        ("", False),
        ("unknown", False),
        ("vsock:127.0.0.1:1", False),
        ("unix:", False),
        ("unix:127.0.0.1:1", False),
        ("unix-abstract:gatehouse", False),
    ],
)
def test_r1_a_peer_is_trusted_by_its_address(peer: str, is_gateway: bool) -> None:
    """One whose address cannot be read is not."""
    is_trusted = trust_peers(["127.0.0.0/8", "::1/128"])
    assert trust_peer_names(is_trusted, is_unix=False)(peer) is is_gateway


def test_r1_peers_of_the_ports_own_unix_socket_are_trusted() -> None:
    is_gateway = trust_peer_names(trust_peers([]), is_unix=True)
    assert is_gateway("unix:")
    assert not is_gateway("ipv4:127.0.0.1:5000")
