"""A real HAProxy that checks tokens by itself, on the shipped config."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import pytest

from shared.feed import EntryKind
from shared.jose.jws import JwsError
from shared.jose.verification_keys import JwksError, VerificationKey, read_keys
from tests.conformance.conftest import corpus as corpus
from tests.conformance.driver import verify as verify_vector
from tests.support.haproxy_writing import STALENESS
from tests.support.installed_gateways import require
from tests.support.kept_connection import KeptConnection
from tests.support.native_haproxy import NativeHaproxy, running_haproxy
from tests.support.native_tokens import AUTHORIZATIONS, CASES, our_token
from tests.support.processes import wait_until
from tests.support.raw_http import bearer, send
from tests.support.tokens import AUDIENCE, ISSUER, good_claims, signing_key
from tests.support.trusting import trust_in
from verifier.check.denials import Denied
from verifier.check.policy import TokenPolicy
from verifier.check.trust import keys_by_id
from verifier.check.verify import verify
from verifier.native.haproxy import master
from verifier.native.terms import NativeTerms

pytestmark = pytest.mark.processes

SECOND = signing_key("second")
PLAIN = NativeTerms("default", ISSUER, AUDIENCE, 5, 3_600, (), (), (), (), ())
ASKING = PLAIN._replace(
    policy="asking",
    required_scopes=("orders:read",),
    any_scopes=("orders:write", "orders:own"),
    required_roles=("clerk", "auditor"),
    client_ids=("gatehouse", "o'clock"),
)
#: Issuers and audiences of the vectors.
FOREIGN = {
    "vectors": PLAIN._replace(
        policy="vectors", issuer="https://example.com", audience="example_service"
    ),
    "istio": PLAIN._replace(
        policy="istio", issuer="testing@secure.istio.io", audience="svc"
    ),
}
#: Tokens that the verifier accepts and HAProxy refuses, and the requirement.
REFUSED_HERE_ALONE = {
    "aud is a list": "R18",
    "aud is a list with another one": "R18",
    "typ application/at+jwt": "R18",
    "header with spaces": "R17",
    "header in another order": "R17",
    "claims in another order": "R17",
    "a further claim": "R17",
    "payload with spaces": "R17",
    "line end after the payload": "R17",
    "exp is no whole number": "R18",
    "nbf in the past": "R18",
    "escaped letter": "R17",
    "letter outside ASCII": "R12",
    "space in the subject": "R12",
    "percent sign in the subject": "R12",
    "comma in the subject": "R12",
    "quotation mark in the subject": "R12",
    "bracket in a role": "R12",
    "space in a role": "R12",
    "no scope": "R18",
    "no auth_time": "R18",
    "two spaces in the scope": "R17",
    "Authorization: two spaces": "R13",
}
#: Tokens that HAProxy accepts and the verifier refuses: none.
ACCEPTED_HERE_ALONE: dict[str, str] = {}


@pytest.fixture(scope="module")
def site() -> Iterator[NativeHaproxy]:
    require("haproxy")
    with running_haproxy(
        (PLAIN, ASKING, *FOREIGN.values()), [signing_key(), SECOND]
    ) as site:
        yield site


@pytest.fixture(autouse=True)
def is_settled(site: NativeHaproxy) -> None:
    """Wait for what a test before this one had begun."""
    site.settle()


# --- revocations ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "claims", "key", "generation"),
    [
        (EntryKind.JTI, {"jti": "r-jti"}, "r-jti", 0),
        (EntryKind.SID, {"sid": "r-sid"}, "r-sid", 0),
        (EntryKind.SID, {"sid": "#r;<<'$&"}, "#r;<<'$&", 0),
        (EntryKind.USER, {"sub": "r-user", "gen": 2}, "r-user", 3),
        (EntryKind.USER, {"sub": "r-again", "gen": 3}, "r-again", 4),
        (EntryKind.CLIENT, {"sub": "c", "client_id": "c", "gen": 0}, "c", 1),
    ],
    ids=["jti", "sid", "odd sid", "user", "user again", "client"],
)
def test_entry_that_is_in_force_is_in_force_in_every_thread(
    site: NativeHaproxy,
    kind: EntryKind,
    claims: dict[str, Any],
    key: str,
    generation: int,
) -> None:
    if generation > 3:
        # A minimum that is raised takes another command.
        site.writing.confirm(kind, key, generation - 1)
    token = our_token(**claims)
    kept = [KeptConnection(site.ports["default"]) for _ in range(16)]
    try:
        for connection in kept:
            connection.send(token)
        assert {connection.status() for connection in kept} == {200}
        site.writing.confirm(kind, key, generation)
        for connection in kept:
            connection.send(token)
        assert {connection.status() for connection in kept} == {401}
    finally:
        for connection in kept:
            connection.close()
    assert (
        site.ask(our_token(**claims | {"gen": generation, "jti": "-", "sid": "-"}))
        == 200
    )


def test_clients_generation_does_not_concern_its_users(site: NativeHaproxy) -> None:
    site.writing.confirm(EntryKind.CLIENT, "web-client", 9)
    assert site.ask(our_token(client_id="web-client")) == 200


def test_revocations_outlive_a_reload_in_both_workers(site: NativeHaproxy) -> None:
    before, after = our_token(sid="before"), our_token(sid="after")
    site.writing.confirm(EntryKind.SID, "before")
    # Its head is not complete, so the worker that has it does not end.
    kept = KeptConnection(site.ports["default"])
    kept._stream.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n")
    site.reload()
    assert "# old workers" in site.master("show proc")
    site.writing.confirm(EntryKind.SID, "after")
    assert [site.ask(token) for token in (before, after)] == [401, 401]
    kept._stream.sendall(f"Authorization: Bearer {after}\r\n\r\n".encode())
    assert kept.status() == 401
    kept.close()


def test_failed_reload_closes_nothing(site: NativeHaproxy) -> None:
    token = our_token(sid="failed")
    with site.failed_reload():
        assert site.ask(token) == 200
        site.writing.confirm(EntryKind.SID, "failed")
        assert [site.ask(token), site.ask(our_token())] == [401, 200]


def test_nothing_passes_that_is_confirmed_under_load_and_a_reload(
    site: NativeHaproxy,
) -> None:
    # Every thread has some of them; a reload ends them, and others take their place.
    passed, refused, before = 0, 0, site.worker()
    with site.load(our_token()):
        for n in range(60):
            token = our_token(sid=f"load-{n}", sub="load", gen=n)
            if n == 20:
                site.master("reload")
            if n == 40:
                # These may have met a worker that was not open yet.
                wait_until(lambda: site.worker() != before, what="another worker")
                site.wait_until_open()
            if n % 2:
                site.writing.confirm(EntryKind.SID, f"load-{n}")
            else:
                site.writing.confirm(EntryKind.USER, "load", n + 1)
            statuses = site.ask_at_once(token, 8)
            passed += statuses.count(200)
            refused += statuses.count(401)
    assert passed == 0
    assert refused > 8 * 30


def test_killed_haproxy_is_waited_for_no_more_and_found_again(
    site: NativeHaproxy,
) -> None:
    site.kill()
    site.writing.confirm(EntryKind.SID, "while-away")
    site.start_haproxy()
    site.wait_until_open()
    assert site.ask(our_token(sid="while-away")) == 401


def test_stopped_worker_keeps_a_revocation_pending_until_it_goes_on(
    site: NativeHaproxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(master, "ANSWER_TIME", 0.3)
    token = our_token(sid="while-stopped")
    assert site.ask(token) == 200
    with site.stopped_worker():
        position = site.writing.revoke(EntryKind.SID, "while-stopped")
        # Its window is over, but it goes on by the clock of before.
        assert not site.writing.is_confirmed(position, STALENESS + 0.5)
    assert site.writing.is_confirmed(position)
    assert site.ask(token) == 401
    site.wait_until_open()
    assert site.ask(token) == 401


def test_worker_closes_without_news_and_opens_by_itself(site: NativeHaproxy) -> None:
    token = our_token()
    site.writing.confirm(EntryKind.SID, "before-closing")
    site.writing.stop()
    wait_until(lambda: site.ask(token) == 503, what="closed")
    answer = send(site.ports["default"], headers=[bearer(token)])
    assert (answer.status, answer.header("Retry-After")) == (503, "5")
    site.restart_writing()
    site.wait_until_open()
    assert site.ask(our_token(sid="before-closing")) == 401


def test_revoked_key_signs_no_more(site: NativeHaproxy) -> None:
    token = our_token(SECOND)
    assert site.ask(token) == 200
    site.writing.confirm(EntryKind.KID, SECOND.kid)
    assert site.ask(token) == 401
    assert site.ask(our_token()) == 200


def test_policy_that_changes_holds_after_a_reload(site: NativeHaproxy) -> None:
    token, revoked = our_token(scope="orders:read"), our_token(sid="policy")
    assert site.ask(token) == 200
    # Its head is not complete, so the worker that has it does not end.
    kept = KeptConnection(site.ports["default"])
    kept._stream.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n")
    stricter = PLAIN._replace(required_scopes=("orders:write",))
    site.writing.terms = {**site.writing.terms, "default": stricter}
    wait_until(lambda: site.ask(token) == 403, what="the policy holds")
    site.wait_until_open()
    assert "# old workers" in site.master("show proc")
    site.writing.confirm(EntryKind.SID, "policy")
    # By the rules of before, until its window is over.
    kept._stream.sendall(f"Authorization: Bearer {revoked}\r\n\r\n".encode())
    assert kept.status() in {401, 503}
    kept.close()
    site.writing.terms = {**site.writing.terms, "default": PLAIN}
    site.wait_until_open(token)


def test_worker_that_a_failed_reload_leaves_closed_is_seen(
    site: NativeHaproxy,
) -> None:
    """Every request was answered 503, and everything looked well."""
    gateways, in_force = site.writing.gateways, site.writing.in_force

    def errors() -> str:
        return " ".join(writer.last_error for writer in gateways.writers.values())

    token = our_token()
    with site.failed_reload():
        stricter = PLAIN._replace(required_scopes=("orders:read",))
        site.writing.terms = {**site.writing.terms, "default": stricter}
        wait_until(lambda: site.ask(token) == 503, what="closed")
        wait_until(lambda: "policies of before" in errors(), what="named")
        assert in_force.failing_processes == 1
        (name,) = gateways.writers
        assert in_force.progress(name).window_left < STALENESS - 1
    # By itself, once the configuration can be read.
    site.writing.terms = {**site.writing.terms, "default": PLAIN}
    # The stricter policy opens first.
    site.wait_until_open(our_token(scope=""))
    wait_until(lambda: not errors(), what="nothing is wrong")
    assert in_force.failing_processes == 0


# --- what passes ----------------------------------------------------------------------


def headers_of(
    site: NativeHaproxy, token: str, *lines: tuple[str, str]
) -> list[list[str]]:
    answer = send(site.ports["default"], headers=[bearer(token), *lines])
    assert answer.status == 200
    return list(answer.json())


SPOOFED = [
    ("X-Auth-Subject", "mallory"),
    ("X_Auth_User", "mallory"),
    ("X.Auth.Roles", "mallory"),
    ("x-auth_client", "mallory"),
    ("X-Auth", "mallory"),
    ("X-Auth-Anything", "mallory"),
    ("Remote_User", "mallory"),
    ("X-Forwarded-User", "mallory"),
    ("Forwarded", "for=mallory"),
    ("X_Real_IP", "mallory"),
    ("X-Request-Id", "mallory"),
    ("X-Original-URL", "/mallory"),
    ("X.Rewrite.Url", "/mallory"),
    ("Connection", "X-Auth-Session, X-Auth-User"),
]


def test_identity_comes_once_and_in_no_spelling_of_the_client(
    site: NativeHaproxy,
) -> None:
    token = our_token(roles=["clerk", "a'b", "c[d"], amr=["pwd", "otp"], acr="mfa")
    found = headers_of(site, token, *SPOOFED)
    assert "mallory" not in json.dumps(found)
    claims = good_claims(0)
    assert [pair for pair in found if pair[0].startswith("x-auth")] == [
        ["x-auth-subject", claims["sub"]],
        ["x-auth-user", "alice"],
        ["x-auth-client", "gatehouse"],
        ["x-auth-scope", "orders:read orders:write"],
        ["x-auth-roles", "clerk a'b c[d"],
        ["x-auth-session", "sid-1"],
        ["x-auth-decision", "allow"],
    ]
    assert "authorization" not in [name for name, _ in found]


def test_identity_without_a_value_is_empty(site: NativeHaproxy) -> None:
    found = dict(headers_of(site, our_token(roles=[], scope="", username=None)))
    for name in ("user", "scope", "roles"):
        assert found[f"x-auth-{name}"] == ""


def test_name_after_other_claims_is_no_username(site: NativeHaproxy) -> None:
    token = our_token(username=None, amr=["pwd"], acr="username")
    assert dict(headers_of(site, token))["x-auth-user"] == ""


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 200),
        ({"scope": "x orders:own orders:read y"}, 200),
        ({"scope": "orders:read"}, 403),
        ({"scope": "orders:reads orders:write"}, 403),
        ({"scope": ""}, 403),
        ({"roles": ["a", "auditor", "b"]}, 200),
        ({"roles": ["clerks", "a-clerk"]}, 403),
        ({"roles": []}, 403),
        ({"client_id": "o'clock"}, 200),
        ({"client_id": "gatehouse2"}, 403),
    ],
)
def test_policy_asks_what_its_file_says(
    site: NativeHaproxy, changes: dict[str, Any], status: int
) -> None:
    answer = send(site.ports["asking"], headers=[bearer(our_token(**changes))])
    assert answer.status == status
    if status == 403:
        assert 'error="insufficient_scope"' in str(answer.header("WWW-Authenticate"))


def test_credential_of_a_proxy_is_none(site: NativeHaproxy) -> None:
    """Only `Authorization` counts, whatever the form of the target."""
    good, other = our_token(), our_token(signing_key("stranger"))
    for target in ("/", f"http://127.0.0.1:{site.ports['default']}/"):
        lines = [bearer(other), ("Proxy-Authorization", f"Bearer {good}")]
        assert send(site.ports["default"], "GET", target, lines).status == 401
        lines = [bearer(good), ("Proxy-Authorization", f"Bearer {other}")]
        assert send(site.ports["default"], "GET", target, lines).status == 200


def test_answers_say_what_is_missing(site: NativeHaproxy) -> None:
    nothing = send(site.ports["default"])
    assert (nothing.status, nothing.header("WWW-Authenticate")) == (
        401,
        'Bearer realm="gatehouse"',
    )
    bad = send(site.ports["default"], headers=[bearer("x.y.z")])
    assert 'error="invalid_token"' in str(bad.header("WWW-Authenticate"))
    assert bad.header("Cache-Control") == "no-store"


# --- what is weaker, or stricter, than the verifier -----------------------------------


def accepts(token: bytes, keys: list[VerificationKey]) -> bool:
    """Return whether the verifier accepts the token."""
    trust = trust_in(keys_by_id(keys), until=1e12)
    try:
        verify(token, trust, TokenPolicy.own(ISSUER, AUDIENCE, 5), int(time.time()))
    except (Denied, JwsError):
        return False
    return True


def test_differences_are_the_published_ones(site: NativeHaproxy) -> None:
    """R14 to R18: nothing passes here that the verifier refuses."""
    weaker, stricter = set(), set()
    for name, make in CASES.items():
        token = make(int(time.time()))
        here = site.ask_raw(b"Authorization: Bearer " + token) == 200
        there = accepts(token, site.keys)
        if here and not there:
            weaker.add(name)
        if there and not here:
            stricter.add(name)
    good = our_token().encode()
    for name, (line, is_accepted) in AUTHORIZATIONS.items():
        here = site.ask_raw(line.replace(b"TOKEN", good)) == 200
        if here != is_accepted:
            (weaker if here else stricter).add(f"Authorization: {name}")
    assert weaker == set(ACCEPTED_HERE_ALONE)
    assert stricter == set(REFUSED_HERE_ALONE)


def test_vectors_pass_nowhere_where_the_verifier_refuses(
    site: NativeHaproxy, corpus: list[dict[str, Any]]
) -> None:
    """Every vector, with the issuers, audiences and keys of the vectors trusted."""
    known = {key.kid: key for key in site.keys}
    for case in corpus:
        for key in _usable(case["keys"]):
            known.setdefault(key.kid, key)
    site.keys = list(known.values())
    assert len(site.keys) > 4
    site.writing.trust_keys(site.keys)
    # A reload ends connections.
    site.settle()
    # A token of our form passes there, signed by one of ours.
    for name, terms in FOREIGN.items():
        site.wait_until_open(our_token(iss=terms.issuer, aud=terms.audience), name)
    passed = []
    for name in FOREIGN:
        cases = [c for c in corpus if _policy_of(c) == name]
        statuses = site.ask_many([_bytes_of(case) for case in cases], name)
        assert len(statuses) == len(cases)
        passed += [c for c, s in zip(cases, statuses, strict=True) if s == 200]
    assert [case["id"] for case in passed if not _is_good(case)] == []


def _policy_of(case: dict[str, Any]) -> str:
    policy = case["policy"] or {}
    return "istio" if "istio" in str(policy.get("iss")) else "vectors"


def _is_good(case: dict[str, Any]) -> bool:
    policy = None if case["level"] == "jws" else case["policy"]
    text = _bytes_of(case).decode("utf-8", "surrogateescape")
    return verify_vector(text, case["keys"], policy)


def _bytes_of(case: dict[str, Any]) -> bytes:
    if "token_b64" in case:
        return b64decode(case["token_b64"])
    if "token_repeat" in case:
        text, times = case["token_repeat"]
        return str(text * times).encode()
    return str(case["token"]).encode("utf-8", "surrogatepass")


def _usable(jwks: dict[str, Any]) -> tuple[VerificationKey, ...]:
    try:
        return read_keys(json.dumps(jwks).encode(), frozenset({"RS256"})).keys
    except JwksError:
        return ()
