"""Answers: every identity header once, and refusals that reveal little."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import orjson
import pytest

from shared.claims import REQUIRED_CLAIMS
from tests.support.tokens import good_claims
from verifier.check.answers import (
    IDENTITY_HEADERS,
    REFUSALS_WITH_BODY,
    REFUSALS_WITHOUT_BODY,
    RETRY_AFTER,
    Answer,
    allow_answer,
)
from verifier.check.claims import claims_of
from verifier.check.denials import REFUSALS, DenyReason
from verifier.check.verify import SignedClaims


def allow(decision: bytes = b"allow", **changes: Any) -> dict[bytes, bytes]:
    claims = claims_of(good_claims(0, **changes), REQUIRED_CLAIMS)
    answer = allow_answer(SignedClaims(claims), decision)
    assert (answer.status, answer.body) == (200, b"")
    headers = dict(answer.headers)
    assert len(headers) == len(answer.headers)
    return headers


def test_allow_is_200_with_empty_body_and_identity_headers() -> None:
    assert allow() == {
        b"Content-Length": b"0",
        b"X-Auth-Subject": b"5f9c1e1e-0000-4000-8000-000000000001",
        b"X-Auth-User": b"alice",
        b"X-Auth-Client": b"gatehouse",
        b"X-Auth-Scope": b"orders:read orders:write",
        b"X-Auth-Roles": b"clerk",
        b"X-Auth-Session": b"sid-1",
        b"X-Auth-Decision": b"allow",
    }


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"username": None},
        {"scope": None, "roles": None},
        {"username": "", "scope": "", "roles": []},
        {"scope": "a b c", "roles": ["x", "y"]},
    ],
)
def test_cve_2026_30851_every_identity_header_is_on_every_allow_once(
    changes: dict[str, Any],
) -> None:
    """R10: a missing one would leave the client's own in place."""
    assert set(allow(**changes)) == {b"Content-Length", *IDENTITY_HEADERS}


def test_an_identity_without_a_value_is_empty() -> None:
    headers = allow(username=None, scope=None, roles=None)
    for name in (b"X-Auth-User", b"X-Auth-Scope", b"X-Auth-Roles"):
        assert headers[name] == b""


def test_a_stale_allow_is_marked() -> None:
    assert allow(b"allow-stale")[b"X-Auth-Decision"] == b"allow-stale"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("alice@example.test", b"alice@example.test"),
        ("a b", b"a%20b"),
        ("100%", b"100%25"),
        ("a,b", b"a%2Cb"),
        ("Zoë", b"Zo%C3%AB"),
        ("名", b"%E5%90%8D"),
        ("😀", b"%F0%9F%98%80"),
        ("%0d%0aX-Auth-Roles: admin", b"%250d%250aX-Auth-Roles:%20admin"),
        ('<>"\\{}|^`~', b'<>"\\{}|^`~'),
    ],
)
def test_values_are_visible_ascii_by_percent_encoding(text: str, value: bytes) -> None:
    """R12."""
    assert allow(username=text)[b"X-Auth-User"] == value
    assert unquote(value.decode("ascii")) == text


def test_words_are_joined_by_one_space_and_cannot_make_two() -> None:
    headers = allow(roles=["a b", "c,d"], scope=" x  y ")
    assert headers[b"X-Auth-Roles"] == b"a%20b c%2Cd"
    assert headers[b"X-Auth-Scope"] == b"x y"


def test_no_value_can_end_a_line_even_if_reading_let_it_pass() -> None:
    """R12: the second wall; claims with these are refused before."""
    claims = claims_of(good_claims(0), REQUIRED_CLAIMS)
    hostile = "a\r\nX-Auth-Roles: admin\x00\x7f\t"
    changes: list[dict[str, Any]] = [
        *({name: hostile} for name in ("sub", "username", "client_id", "sid")),
        *({name: (hostile,)} for name in ("scopes", "roles")),
    ]
    for change in changes:
        changed = SignedClaims(claims._replace(**change))
        _assert_lines_are_whole(allow_answer(changed, b"allow"))


def _assert_lines_are_whole(answer: Answer) -> None:
    for name, value in answer.headers:
        assert not {*b"\r\n\x00\x7f\t"} & {*name, *value}
    lines = answer.head.split(b"\r\n")
    assert len(lines) == 1 + len(answer.headers) + 2


def test_the_head_has_the_headers() -> None:
    claims = claims_of(good_claims(0), REQUIRED_CLAIMS)
    answers = [allow_answer(SignedClaims(claims), b"allow")]
    answers += [*REFUSALS_WITH_BODY.values(), *REFUSALS_WITHOUT_BODY.values()]
    for answer in answers:
        first, *lines, end, nothing = answer.head.split(b"\r\n")
        assert first.startswith(b"HTTP/1.1 %d " % answer.status)
        pairs = tuple(tuple(line.split(b": ", 1)) for line in lines)
        assert pairs == answer.headers
        assert end == nothing == b""


# --- refusals ------------------------------------------------------------------------

TABLES = [REFUSALS_WITH_BODY, REFUSALS_WITHOUT_BODY]


@pytest.mark.parametrize("reason", DenyReason)
def test_every_reason_has_its_answers(reason: DenyReason) -> None:
    """R9: 401, 403 or 503, and nothing else."""
    for table in TABLES:
        answer = table[reason]
        assert answer.status == REFUSALS[reason].status
        assert answer.status in {401, 403, 503}
        names = [name for name, _ in answer.headers]
        assert len(set(names)) == len(names)
        headers = dict(answer.headers)
        assert headers[b"Content-Length"] == b"%d" % len(answer.body)
        assert headers[b"Cache-Control"] == b"no-store"
        assert not set(IDENTITY_HEADERS) & set(headers)
        if answer.status == 503:
            assert headers[b"Retry-After"] == b"%d" % RETRY_AFTER
            assert b"WWW-Authenticate" not in headers
        else:
            assert headers[b"WWW-Authenticate"].startswith(b"Bearer ")


def test_there_is_no_answer_without_a_reason() -> None:
    for table in [*TABLES, REFUSALS]:
        assert set(table) == set(DenyReason)


def test_bodies_are_problem_documents_where_the_client_gets_to_see_them() -> None:
    """RFC 9457; nginx closes the connection over a body."""
    for reason in DenyReason:
        assert REFUSALS_WITHOUT_BODY[reason].body == b""
        answer = REFUSALS_WITH_BODY[reason]
        problem = orjson.loads(answer.body)
        assert dict(answer.headers)[b"Content-Type"] == b"application/problem+json"
        assert problem["status"] == answer.status
    # no credential, bad request, bad token, old login, too little scope, cannot decide
    assert len({answer.body for answer in REFUSALS_WITH_BODY.values()}) == 6


@pytest.mark.parametrize("table", TABLES, ids=["with body", "without body"])
def test_all_invalid_tokens_look_alike(table: dict[DenyReason, Answer]) -> None:
    """docs/design.md, "What a gateway sees": probing reveals nothing to an attacker."""
    token_reasons = [r for r in DenyReason if REFUSALS[r].error == "invalid_token"]
    assert len(token_reasons) == 22
    assert {table[reason] for reason in token_reasons} == {table[DenyReason.EXPIRED]}


def test_trouble_of_ours_is_never_the_tokens_fault() -> None:
    """R38 (Authelia 8548): a client throws its token away on 401."""
    for reason in (
        DenyReason.NO_KEYS,
        DenyReason.STALE,
        DenyReason.OVERLOADED,
        DenyReason.INTERNAL_ERROR,
        DenyReason.POLICY_UNKNOWN,
        DenyReason.POLICY_UNNAMED,
        DenyReason.ROUTE_UNKNOWN,
        DenyReason.PEER_UNTRUSTED,
    ):
        assert REFUSALS[reason].status == 503


@pytest.mark.parametrize(
    ("reason", "challenge"),
    [
        (DenyReason.CREDENTIAL_MISSING, b'Bearer realm="gatehouse"'),
        (
            DenyReason.EXPIRED,
            b'Bearer realm="gatehouse", error="invalid_token", error_description='
            b'"The access token is malformed, expired or revoked."',
        ),
        (
            DenyReason.CREDENTIAL_REPEATED,
            b'Bearer realm="gatehouse", error="invalid_request", error_description='
            b'"The request or its credential is malformed."',
        ),
        (
            DenyReason.SCOPE_INSUFFICIENT,
            b'Bearer realm="gatehouse", error="insufficient_scope", error_description='
            b'"The access token does not carry what this needs."',
        ),
    ],
)
def test_the_challenge_is_that_of_rfc_6750(
    reason: DenyReason, challenge: bytes
) -> None:
    """Section 3.1: without a credential no error is named."""
    for table in TABLES:
        assert dict(table[reason].headers)[b"WWW-Authenticate"] == challenge
