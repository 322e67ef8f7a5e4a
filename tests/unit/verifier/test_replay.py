"""What would change for logged requests: reported when certain, and never guessed."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from tests.support.gatehouse_verifier import TOKEN_POLICY
from verifier.check.policy import Policy
from verifier.check.rules.requirements import Requirements
from verifier.policies.access_log import ANONYMOUS, Identity, LoggedRequest
from verifier.policies.document import parse_policies
from verifier.policies.replay import MAX_EXAMPLE, MAX_EXAMPLES, Change, Replay, Row

NOW = 1_795_000_000
CLERK = Identity(frozenset({"r"}), frozenset({"clerk"}), "app")
GET = LoggedRequest("a", "GET", "shop.test", "/x", 200, "allow", CLERK)
REFUSED, FORBIDDEN, UNDECIDED = (
    GET._replace(status=status, decision="", identity=None)
    for status in (401, 403, 503)
)
OPEN = GET._replace(decision=ANONYMOUS, identity=None)
NEWLY_REFUSED, NEWLY_ALLOWED = Change.NEWLY_REFUSED, Change.NEWLY_ALLOWED
DIFFERENTLY, CANNOT_TELL = Change.ALLOWED_DIFFERENTLY, Change.CANNOT_TELL


def policies(fields: str, rest: str = "") -> dict[str, Policy]:
    return dict(parse_policies(f"[policies.a]\n{fields}\n{rest}", TOKEN_POLICY))


def rule(fields: str, path: str = "/x") -> str:
    return f'[[policies.a.rules]]\npath = "{path}"\n{fields}\n'


def replayed(old: str, new: str, *requests: LoggedRequest) -> Replay:
    replay = Replay(policies(old), policies(new), NOW)
    for request in requests:
        replay.add(request)
    return replay


def change_of(old: str, new: str, request: LoggedRequest) -> tuple[Change, str] | None:
    *_, row = [row for row in replayed(old, new, request).rows if row.after]
    found = [(c, word) for c, words in row.changes.items() for word in words.elements()]
    assert len(found) <= 1
    return found[0] if found else None


CASES: dict[str, tuple[str, str, LoggedRequest, Any]] = {
    # --- what the log says of an allow
    "scope that it has": ("", 'required_scopes = ["r"]', GET, None),
    "scope that it lacks": (
        "",
        'required_scopes = ["w"]',
        GET,
        (NEWLY_REFUSED, "scope_insufficient"),
    ),
    "one of two scopes": ("", 'any_scopes = ["w", "r"]', GET, None),
    "role that it lacks": (
        "",
        'required_roles = ["admin"]',
        GET,
        (NEWLY_REFUSED, "role_missing"),
    ),
    "another client": (
        "",
        'client_ids = ["other"]',
        GET,
        (NEWLY_REFUSED, "client_not_allowed"),
    ),
    "its client": ("", 'client_ids = ["app"]', GET, None),
    "no rule": ("", rule("", "/y"), GET, (NEWLY_REFUSED, "rule_missing")),
    "the policy is gone": (
        "",
        "\n[policies.b]",
        GET._replace(policy="b"),
        (CANNOT_TELL, "old_file_disagrees"),
    ),
    # --- a token that was refused may lack more than one thing
    "a role, behind a login that was young enough": (
        "max_auth_age = 60\n" + rule('required_scopes = ["w"]'),
        "max_auth_age = 60\n" + rule('required_roles = ["x"]'),
        FORBIDDEN,
        (CANNOT_TELL, "role_missing"),
    ),
    "a younger login than before": (
        "max_auth_age = 3600\n" + rule('required_scopes = ["w"]'),
        "max_auth_age = 60\n" + rule(""),
        FORBIDDEN,
        (CANNOT_TELL, "authentication_too_old"),
    ),
    "a young token, behind a login that was young enough": (
        "max_auth_age = 60\n" + rule('required_scopes = ["w"]'),
        "max_age = 10\n" + rule(""),
        FORBIDDEN,
        (CANNOT_TELL, "token_too_old"),
    ),
    "nothing that was not asked before": (
        "max_auth_age = 60\n" + rule('required_scopes = ["w"]'),
        "max_auth_age = 60\n" + rule(""),
        FORBIDDEN,
        (NEWLY_ALLOWED, "allow"),
    ),
    # --- what no log has
    "claim": ("", 'claims = {t = "x"}', GET, (CANNOT_TELL, "claim_mismatch")),
    "claim that was asked before": (
        'claims = {t = "x"}',
        'claims = {t = "x"}',
        GET,
        None,
    ),
    "claim with one more value": (
        'claims = {t = "x"}',
        'claims = {t = ["x", "y"]}',
        GET,
        None,
    ),
    "claim with one value less": (
        'claims = {t = ["x", "y"]}',
        'claims = {t = "x"}',
        GET,
        (CANNOT_TELL, "claim_mismatch"),
    ),
    "claim of another type": (
        "claims = {t = 1}",
        "claims = {t = true}",
        GET,
        (CANNOT_TELL, "claim_mismatch"),
    ),
    "claim beside a scope that it lacks": (
        "",
        'claims = {t = "x"}\nrequired_scopes = ["w"]',
        GET,
        (NEWLY_REFUSED, "scope_insufficient"),
    ),
    "claim of rule and policy": (
        'claims = {t = "x"}',
        rule('claims = {t = "x"}'),
        GET,
        None,
    ),
    "age": ("", "max_age = 60", GET, (CANNOT_TELL, "token_too_old")),
    "age that all good tokens have": ("", "max_age = 3600", GET, None),
    "age that was allowed less before": ("max_age = 60", "max_age = 90", GET, None),
    "one second less of age": (
        "max_age = 60",
        "max_age = 59",
        GET,
        (CANNOT_TELL, "token_too_old"),
    ),
    "age of the login": (
        "",
        "max_auth_age = 31000000",
        GET,
        (CANNOT_TELL, "authentication_too_old"),
    ),
    "younger login than before": (
        "max_auth_age = 60",
        "max_auth_age = 59",
        GET,
        (CANNOT_TELL, "authentication_too_old"),
    ),
    "older login than before": ("max_auth_age = 60", "max_auth_age = 61", GET, None),
    "another audience": (
        "",
        'audience = "office"',
        GET,
        (CANNOT_TELL, "audience_mismatch"),
    ),
    # --- open paths
    "path becomes public": (
        "",
        "public = true",
        GET,
        (DIFFERENTLY, "allow -> allow-anonymous"),
    ),
    "path becomes optional": ("", "optional = true", GET, None),
    "public path closes, nothing known": (
        "public = true",
        "",
        OPEN,
        (CANNOT_TELL, "invalid_token"),
    ),
    "public path closes, no credential": (
        "public = true",
        "",
        OPEN._replace(has_credential=False),
        (NEWLY_REFUSED, "credential_missing"),
    ),
    "public path closes, some credential": (
        "public = true",
        "",
        OPEN._replace(has_credential=True),
        (CANNOT_TELL, "invalid_token"),
    ),
    "optional path closes": (
        "optional = true",
        "",
        OPEN,
        (NEWLY_REFUSED, "credential_missing"),
    ),
    "optional path becomes public": ("optional = true", "public = true", OPEN, None),
    "public path becomes optional, nothing known": (
        "public = true",
        "optional = true",
        OPEN,
        (CANNOT_TELL, "invalid_token"),
    ),
    "preflight closes": (
        'preflight = "allow"',
        "",
        OPEN._replace(method="OPTIONS"),
        (NEWLY_REFUSED, "credential_missing"),
    ),
    "preflight opens": (
        "",
        'preflight = "allow"',
        REFUSED._replace(method="OPTIONS"),
        (CANNOT_TELL, "invalid_token"),
    ),
    # --- refused requests
    "401, closed as before": ("", 'required_scopes = ["w"]', REFUSED, None),
    "401, becomes public": (
        "",
        "public = true",
        REFUSED,
        (NEWLY_ALLOWED, "allow-anonymous"),
    ),
    "401, becomes optional": (
        "",
        "optional = true",
        REFUSED,
        (CANNOT_TELL, "invalid_token"),
    ),
    "401 without a credential, becomes optional": (
        "",
        "optional = true",
        REFUSED._replace(has_credential=False),
        (NEWLY_ALLOWED, "allow-anonymous"),
    ),
    "401 by its age, perhaps": (
        "max_age = 60",
        "",
        REFUSED,
        (CANNOT_TELL, "invalid_token"),
    ),
    "401, no rule any more": ("max_age = 60", rule("", "/y"), REFUSED, None),
    "401 for another audience, perhaps": (
        "",
        'audience = "office"',
        REFUSED,
        (CANNOT_TELL, "invalid_token"),
    ),
    "403, scope is no longer asked": (
        'required_scopes = ["w"]',
        "",
        FORBIDDEN,
        (NEWLY_ALLOWED, "allow"),
    ),
    "403, one more scope": (
        'required_scopes = ["w"]',
        'required_scopes = ["w", "v"]',
        FORBIDDEN,
        None,
    ),
    "403, another scope": (
        'required_scopes = ["w"]',
        'required_scopes = ["v"]',
        FORBIDDEN,
        (CANNOT_TELL, "scope_insufficient"),
    ),
    "403, one of two scopes less": (
        'required_scopes = ["w", "v"]',
        'required_scopes = ["w"]',
        FORBIDDEN,
        (CANNOT_TELL, "scope_insufficient"),
    ),
    "403, fewer clients": (
        'client_ids = ["b", "c"]',
        'client_ids = ["c"]',
        FORBIDDEN,
        None,
    ),
    "403, more clients": (
        'client_ids = ["b"]',
        'client_ids = ["b", "c"]',
        FORBIDDEN,
        (CANNOT_TELL, "client_not_allowed"),
    ),
    "403, a rule comes": (
        rule("", "/y"),
        rule(""),
        FORBIDDEN,
        (NEWLY_ALLOWED, "allow"),
    ),
    "403 without a token, perhaps": (
        rule("public = true", "/y"),
        rule("") + rule("public = true", "/y"),
        FORBIDDEN,
        (CANNOT_TELL, "invalid_token"),
    ),
    "403 where the old file allows": (
        "",
        "",
        FORBIDDEN,
        (CANNOT_TELL, "old_file_disagrees"),
    ),
    # --- the gate could not decide
    "503, closed as before": ("", 'required_scopes = ["w"]', UNDECIDED, None),
    "503, becomes public": (
        "",
        "public = true",
        UNDECIDED,
        (NEWLY_ALLOWED, "allow-anonymous"),
    ),
    "503, stale or without keys": (
        "",
        'on_stale = "allow"',
        UNDECIDED,
        (CANNOT_TELL, "invalid_token"),
    ),
    "stale, as before": (
        'on_stale = "allow"',
        'on_stale = "allow"',
        GET._replace(decision="allow-stale"),
        None,
    ),
    "stale, no longer allowed": (
        'on_stale = "allow"',
        "",
        GET._replace(decision="allow-stale"),
        (NEWLY_REFUSED, "stale"),
    ),
    "decision that the old file cannot make": (
        "",
        "",
        GET._replace(decision="allow-someday"),
        (CANNOT_TELL, "old_file_disagrees"),
    ),
    # --- the request itself
    "path with two readings": (
        rule("", "/**"),
        rule("", "/**"),
        REFUSED._replace(path="/a/../b"),
        None,
    ),
    "host of the rule": (
        "",
        rule('hosts = ["shop.test"]'),
        GET._replace(host="SHOP.test:80"),
        None,
    ),
    "another host": (
        "",
        rule('hosts = ["shop.test"]'),
        GET._replace(host="evil.test"),
        (NEWLY_REFUSED, "rule_missing"),
    ),
    "no host in the log": (
        "",
        rule('hosts = ["shop.test"]'),
        GET._replace(host=""),
        (NEWLY_REFUSED, "forwarded_missing"),
    ),
}


@pytest.mark.parametrize(
    ("old", "new", "request_", "expected"), CASES.values(), ids=CASES
)
def test_change_is_told_when_it_is_certain(
    old: str, new: str, request_: LoggedRequest, expected: Any
) -> None:
    assert change_of(old, new, request_) == expected


@pytest.mark.parametrize("name", CASES)
def test_no_file_differs_from_itself(name: str) -> None:
    for text in CASES[name][:2]:
        found = change_of(text, text, CASES[name][2])
        assert found in (None, (CANNOT_TELL, "old_file_disagrees"))


def test_every_condition_on_tokens_has_a_token_that_lacks_it() -> None:
    """One that `possibilities.py` has not heard of would be reported as no change."""
    heard_of = {
        *("required_scopes", "any_scopes", "required_roles", "client_ids"),
        *("claims", "max_age", "max_auth_age"),
    }
    assert {field.name for field in fields(Requirements)} == heard_of


def test_policy_that_only_one_file_has() -> None:
    both, one = policies(""), dict(parse_policies("", TOKEN_POLICY))
    gone, came = Replay(both, one, NOW), Replay(one, both, NOW)
    gone.add(GET)
    _, row = sorted(gone.rows, key=lambda row: row.before)[::-1]
    assert row.name.note == "unknown policy"
    assert row.changes == {NEWLY_REFUSED: {"policy_unknown": 1}}
    came.add(UNDECIDED)
    assert came.totals()[CANNOT_TELL] == 1


def test_rows_follow_a_rule_to_its_new_number() -> None:
    moved = rule('methods = ["GET"]')
    old = rule("", "/a") + moved
    new = rule("", "/b") + rule("", "/a") + moved + rule("", "/**")
    requests = [
        *[GET] * 3,
        *[FORBIDDEN._replace(path="/b")] * 2,
        FORBIDDEN._replace(method="POST", path="/c"),
    ]
    rows = replayed(old, new, *requests).rows
    assert [
        (row.name.path or row.name.note, row.old_number, row.new_number) for row in rows
    ] == [("/b", 0, 1), ("/x", 2, 3), ("/**", 0, 4), ("no rule", 0, 0)]
    assert [(row.before, row.after) for row in rows] == [(0, 2), (3, 3), (0, 1), (3, 0)]
    assert rows[0].changes == {NEWLY_ALLOWED: {"allow": 2}}


def test_what_grows_is_bounded_and_harmless() -> None:
    """The client wrote method, host and path, and the policy may be anything."""
    replay = Replay(policies(rule("")), policies(rule('required_scopes = ["w"]')), NOW)
    for number in range(1_000):
        path = f"/{number}/\x1b[2J\u202e" + "a" * 5_000
        replay.add(FORBIDDEN._replace(policy=f"p{number}", path=path))
        replay.add(GET._replace(host=f"h{number}\n.test"))
        replay.add(FORBIDDEN._replace(path=path, method="G\x9bT"))
    assert len(replay.rows) <= 4
    for row in replay.rows:
        for examples in row.examples.values():
            assert len(examples) <= MAX_EXAMPLES
            for example in examples:
                assert example.isascii()
                assert example.isprintable()
                assert len(example) <= MAX_EXAMPLE + 3


def test_same_request_is_one_example() -> None:
    def counted(row: Row) -> list[str]:
        return row.examples[NEWLY_REFUSED]

    (row,) = replayed("", 'required_scopes = ["w"]', GET, GET, GET).rows
    assert counted(row) == ["GET shop.test/x"]
