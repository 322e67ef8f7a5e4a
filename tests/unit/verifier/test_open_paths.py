"""Paths that need no token: public, optional, and CORS preflights (R61)."""

from __future__ import annotations

from typing import Any

import pytest

from shared.feed import EntryKind, FeedEntry
from tests.support.policy_questions import (
    ANONYMOUS,
    BOOTTIME,
    CORS,
    GOOD,
    NOW,
    PUBLIC,
    TOKEN,
    ask,
    decision,
    reason,
    trusting,
)
from tests.support.tokens import ISSUER
from verifier.check.answers import IDENTITY_HEADERS
from verifier.check.decision import Allowed, CheckPaths, Times, decide
from verifier.check.forward_auth import DIALECTS, PlainCheckRequest
from verifier.check.policy import (
    PolicyBook,
)
from verifier.check.trust import Trust
from verifier.policies.document import parse_policies


@pytest.mark.parametrize(
    "credentials",
    [
        (),
        ((b"authorization", b""),),
        ((b"authorization", b"Basic YTpi"),),
        ((b"authorization", b"Bearer x"), (b"authorization", b"Bearer y")),
    ],
    ids=["none", "empty", "basic", "two"],
)
def test_public_path_passes_whatever_the_credential(
    credentials: tuple[tuple[bytes, bytes], ...],
) -> None:
    """R61 (oauth2-proxy 1245, authentik 10419): every identity header, and empty."""
    for trust in (Trust(ISSUER), trusting(fresh_for=-1), trusting()):
        why, sent = ask(PUBLIC, uri="/assets/a.css", headers=credentials, trust=trust)
        assert why == ""
        assert sent.pop(b"X-Auth-Decision") == ANONYMOUS
        assert sent.pop(b"Content-Length") == b"0"
        assert sent == dict.fromkeys(IDENTITY_HEADERS[:-1], b"")


def test_public_path_does_not_show_who_is_logged_in() -> None:
    _, sent = ask(PUBLIC, uri="/assets/a.css", **GOOD)
    assert sent[b"X-Auth-Subject"] == b""


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/assets", ""),
        ("/assets/", ""),
        ("/assets/../admin", "path_ambiguous"),
        ("/assets/%2e%2e/admin", "path_ambiguous"),
        ("/assets/..;/admin", "path_ambiguous"),
        ("/%61ssets/..%2fadmin", "path_ambiguous"),
        ("/assetsx", "credential_missing"),
        ("/Assets/a", "credential_missing"),
        ("/x?/assets/a", "credential_missing"),
        ("//assets/a", "path_ambiguous"),
        ("", "forwarded_missing"),
        (None, "forwarded_missing"),
    ],
)
def test_path_beside_a_public_one_needs_a_token(uri: str | None, expected: str) -> None:
    assert reason(PUBLIC, uri=uri) == expected


def test_public_path_of_an_unknown_peer_is_refused() -> None:
    """R1: a stranger's headers are not read, so the path is not known."""
    book = PolicyBook(parse_policies("[policies.default]\npublic = true", TOKEN))
    request = PlainCheckRequest(b"GET", b"/verify/nginx", [], peer_is_trusted=False)
    outcome = decide(
        request, trusting().snapshot, CheckPaths(book), Times(NOW, BOOTTIME)
    )
    assert not isinstance(outcome, Allowed)
    assert outcome.reason.value == "peer_untrusted"


def test_policy_that_is_public_needs_neither_method_nor_path() -> None:
    assert decision("public = true", uri=None, method="") == ANONYMOUS


OPTIONAL = '[[policies.a.rules]]\npath = "/**"\noptional = true'


@pytest.mark.parametrize("policy", [OPTIONAL, "optional = true"])
def test_optional_token_must_be_good_where_there_is_one(policy: str) -> None:
    assert decision(policy) == ANONYMOUS
    assert decision(policy, **GOOD) == b"allow"
    assert ask(policy, **GOOD)[1][b"X-Auth-Subject"] == b"app"
    assert reason(policy, token=b"x") == "token_malformed"
    assert reason(policy, exp=NOW - 60, iat=NOW - 90) == "expired"
    assert reason(policy, headers=((b"authorization", b""),)) == "credential_malformed"
    entry = FeedEntry(1, EntryKind.SID, "sid-1", 0, NOW + 999)
    assert reason(policy, trust=trusting(entry), **GOOD) == "revoked_sid"


@pytest.mark.parametrize("policy", [OPTIONAL, "optional = true"])
def test_optional_token_is_not_believed_by_stale_trust(policy: str) -> None:
    stale = trusting(fresh_for=-1)
    assert reason(policy, trust=stale, **GOOD) == "stale"
    assert decision(policy, trust=stale) == ANONYMOUS


def test_optional_path_asks_nothing_of_a_token_that_it_does_not_need() -> None:
    policy = 'required_scopes = ["none-has-this"]\n' + OPTIONAL
    assert decision(policy, **GOOD) == b"allow"


def test_policy_still_asks_where_the_rule_needs_a_token() -> None:
    policy = 'required_scopes = ["none-has-this"]\n' + PUBLIC
    assert reason(policy, uri="/x", **GOOD) == "scope_insufficient"


RULES = '[[policies.a.rules]]\npath = "/x"'


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_preflight_passes_where_the_policy_lets_it(dialect: bytes) -> None:
    preflight: dict[str, Any] = {"method": "OPTIONS", "uri": "/x", "headers": CORS}
    for policy in ("", RULES):
        allowing = 'preflight = "allow"\n' + policy
        found = decision(allowing, dialect=dialect, **preflight)
        assert found == ANONYMOUS
        refusing = 'preflight = "deny"\n' + policy
        assert reason(refusing, dialect=dialect, **preflight) == "credential_missing"
        assert reason(policy, dialect=dialect, **preflight) == "credential_missing"


@pytest.mark.parametrize("rule", ["public = true", "optional = true"])
@pytest.mark.parametrize("preflight", ["", 'preflight = "deny"\n'])
def test_open_rule_elsewhere_lets_no_preflight_pass(preflight: str, rule: str) -> None:
    elsewhere = f'[[policies.a.rules]]\npath = "/open"\n{rule}\n'
    asked: dict[str, Any] = {"method": "OPTIONS", "uri": "/x", "headers": CORS}
    found = reason(preflight + elsewhere + RULES, **asked)
    assert found == "credential_missing"


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", CORS),
        ("options", CORS),
        ("OPTIONS", CORS[:1]),
        ("OPTIONS", CORS[1:]),
        ("OPTIONS", (*CORS, (b"authorization", b""))),
        ("OPTIONS", (*CORS, (b"authorization", b"Bearer x"))),
    ],
)
def test_what_is_no_preflight_needs_a_token(
    method: str, headers: tuple[tuple[bytes, bytes], ...]
) -> None:
    found = reason('preflight = "allow"', method=method, headers=headers)
    assert found in {"credential_missing", "credential_malformed", "token_malformed"}
