"""Rules and requirements through `decide`: open paths, hosts, claims, ages, headers."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from shared.feed import EntryKind, FeedEntry
from shared.identity_headers import MAX_ALLOW_HEAD_BYTES
from tests.support.tokens import AUDIENCE, ISSUER, good_claims, make_token, signing_key
from verifier.check.answers import IDENTITY_HEADERS, anonymous_answer
from verifier.check.cache import FactCache
from verifier.check.decision import Allowed, CheckPaths, Times, decide
from verifier.check.forward_auth import DIALECTS, PlainCheckRequest
from verifier.check.policy import (
    ClaimHeader,
    PolicyBook,
    PolicyError,
    TokenPolicy,
)
from verifier.check.trust import Trust, key_set
from verifier.policies.document import parse_policies

NOW = 1_795_000_000
BOOTTIME = 1_000.0
TOKEN = TokenPolicy(ISSUER, AUDIENCE)


def trusting(*entries: FeedEntry, fresh_for: float = 1) -> Trust:
    trust = Trust(ISSUER)
    trust.trust_keys(ISSUER, key_set([signing_key().jwk]), BOOTTIME + 1)
    trust.enforce(entries)
    trust.renew(BOOTTIME + fresh_for)
    return trust


def ask(
    policy: str,
    *,
    method: str = "GET",
    host: str | None = None,
    uri: str | None = "/",
    token: bytes | None = None,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    trust: Trust | None = None,
    dialect: bytes = b"nginx",
    **claims: Any,
) -> tuple[str, dict[bytes, bytes]]:
    """Return the reason of a refusal, empty for an allow, and the answer's headers."""
    book = PolicyBook(parse_policies(f"[policies.a]\n{policy}", TOKEN))
    sent = [*headers]
    if token is None and claims:
        token = make_token(good_claims(NOW, **claims))
    if token is not None:
        sent.append((b"authorization", b"Bearer " + token))
    read = DIALECTS[dialect]
    target = b"/verify/" + dialect + b"/p/a"
    if read.uri_header:
        sent.append((read.method_header, method.encode()))
        if uri is not None:
            sent.append((read.uri_header, uri.encode()))
    else:
        target += (uri or "").encode()
    if host is not None:
        sent.append((read.host_header, host.encode()))
    request = PlainCheckRequest(method.encode(), target, sent, peer_is_trusted=True)
    outcome = decide(
        request,
        (trust or trusting()).snapshot,
        CheckPaths(book),
        Times(NOW, BOOTTIME),
    )
    if isinstance(outcome, Allowed):
        return "", dict(outcome.answer.headers)
    return outcome.reason.value, {}


def reason(policy: str, **options: Any) -> str:
    return ask(policy, **options)[0]


def decision(policy: str, **options: Any) -> bytes:
    """Return `X-Auth-Decision` of an allow, empty for a refusal."""
    return ask(policy, **options)[1].get(b"X-Auth-Decision", b"")


GOOD: dict[str, Any] = {"sub": "app"}
ANONYMOUS = b"allow-anonymous"

# --- paths that need no token (R61) ---------------------------------------------------

PUBLIC = """
[[policies.a.rules]]
path = "/assets/**"
public = true
[[policies.a.rules]]
path = "/**"
"""


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


# --- CORS -----------------------------------------------------------------------------

CORS = ((b"origin", b"https://a.test"), (b"access-control-request-method", b"PUT"))
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


# --- hosts ----------------------------------------------------------------------------

HOSTS = """
[[policies.a.rules]]
hosts = ["www.example.com", "*.pub.example.com"]
public = true
[[policies.a.rules]]
hosts = ["api.example.com"]
path = "/v1/**"
"""


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("www.example.com", ""),
        ("WWW.Example.COM:8443", ""),
        ("www.example.com.", ""),
        ("www.example.com.:443", ""),
        ("a.pub.example.com", ""),
        ("b.a.pub.example.com", ""),
        ("pub.example.com", "rule_missing"),
        ("xpub.example.com", "rule_missing"),
        (".pub.example.com", "forwarded_malformed"),
        ("evil.test", "rule_missing"),
        ("www.example.com.evil.test", "rule_missing"),
        ("api.example.com", "credential_missing"),
        ("www.example.com, evil.test", "forwarded_malformed"),
        ("www.example.com/x", "forwarded_malformed"),
        ("user@www.example.com", "forwarded_malformed"),
        ("www.example.com\x00", "forwarded_malformed"),
        ("www..example.com", "forwarded_malformed"),
        ("www.example.com:", "forwarded_malformed"),
        ("www.example.com:x", "forwarded_malformed"),
        ("www%2eexample.com", "forwarded_malformed"),
        ("", "forwarded_missing"),
        (None, "forwarded_missing"),
    ],
)
def test_rule_matches_the_host_of_the_client(
    dialect: bytes, host: str | None, expected: str
) -> None:
    """R7: the host has one form, too, and what has no such form is refused."""
    assert reason(HOSTS, dialect=dialect, host=host, uri="/v1/x") == expected


def test_address_is_a_host() -> None:
    policy = '[[policies.a.rules]]\nhosts = ["[::1]", "127.0.0.1"]\npublic = true'
    assert reason(policy, host="[::1]:8080") == ""
    assert reason(policy, host="127.0.0.1") == ""
    assert reason(policy, host="[::2]") == "rule_missing"
    assert reason(policy, host="[0:0:0:0:0:0:0:1]") == ""
    assert reason(policy, host="[:::::]") == "forwarded_malformed"


def test_host_is_not_read_without_a_rule_that_names_one() -> None:
    assert reason(PUBLIC, uri="/assets/a", host="not a host") == ""


def test_host_that_is_there_twice_is_refused() -> None:
    """R4."""
    twice = ((b"x-original-host", b"www.example.com"),)
    found = reason(HOSTS, host="www.example.com", headers=twice)
    assert found == "forwarded_repeated"
    alias = ((b"x_original_host", b"www.example.com"),)
    assert reason(HOSTS, headers=alias) == "forwarded_repeated"


# --- what a token must have -----------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "claims", "expected"),
    [
        ('any_scopes = ["a", "b"]', {"scope": "b c"}, ""),
        ('any_scopes = ["a", "b"]', {"scope": "c"}, "scope_insufficient"),
        ('any_scopes = ["a", "b"]', {"scope": ""}, "scope_insufficient"),
        ('any_scopes = ["a"]\nrequired_scopes = ["b", "c"]', {"scope": "a b c"}, ""),
        (
            'any_scopes = ["a"]\nrequired_scopes = ["b", "c"]',
            {"scope": "a b"},
            "scope_insufficient",
        ),
        ('client_ids = ["app", "web"]', {"client_id": "web"}, ""),
        ('client_ids = ["app"]', {"client_id": "apps"}, "client_not_allowed"),
        ('claims = { tenant = "acme" }', {"tenant": "acme"}, ""),
        ('claims = { tenant = "acme" }', {"tenant": "Acme"}, "claim_mismatch"),
        ('claims = { tenant = "acme" }', {"sub": "x"}, "claim_mismatch"),
        ('claims = { tenant = "acme" }', {"tenant": None}, "claim_mismatch"),
        ('claims = { tenant = "acme" }', {"tenant": {"a": "acme"}}, "claim_mismatch"),
        ('claims = { tenant = ["acme", "other"] }', {"tenant": "other"}, ""),
        ('claims = { groups = "ops" }', {"groups": ["dev", "ops"]}, ""),
        ('claims = { groups = "ops" }', {"groups": [["ops"]]}, "claim_mismatch"),
        ('claims = { groups = "ops" }', {"groups": []}, "claim_mismatch"),
        ("claims = { email_verified = true }", {"email_verified": True}, ""),
        (
            "claims = { email_verified = true }",
            {"email_verified": 1},
            "claim_mismatch",
        ),
        (
            "claims = { email_verified = true }",
            {"email_verified": "true"},
            "claim_mismatch",
        ),
        ("claims = { level = 1 }", {"level": 1}, ""),
        ("claims = { level = 1 }", {"level": True}, "claim_mismatch"),
        ("claims = { level = 1 }", {"level": 1.0}, "claim_mismatch"),
        (
            'claims.realm_access.roles = "ops"',
            {"realm_access": {"roles": ["ops"]}},
            "",
        ),
        (
            'claims.realm_access.roles = "ops"',
            {"realm_access": ["ops"]},
            "claim_mismatch",
        ),
        ('claims = { a = "1", b = "2" }', {"a": "1", "b": "2"}, ""),
        ('claims = { a = "1", b = "2" }', {"a": "1"}, "claim_mismatch"),
        ("max_age = 60", {"iat": NOW - 65, "exp": NOW + 9}, ""),
        ("max_age = 60", {"iat": NOW - 66, "exp": NOW + 9}, "token_too_old"),
        ("max_auth_age = 60", {"auth_time": NOW - 65}, ""),
        ("max_auth_age = 60", {"auth_time": NOW - 66}, "authentication_too_old"),
        ("max_auth_age = 60", {"auth_time": None}, "authentication_too_old"),
        ("max_auth_age = 60", {"auth_time": "now"}, "authentication_too_old"),
        ("max_auth_age = 60", {"auth_time": -1}, "authentication_too_old"),
        ("max_auth_age = 60", {"auth_time": NOW + 5}, ""),
        ("max_auth_age = 60", {"auth_time": NOW + 6}, "authentication_too_old"),
    ],
)
def test_token_must_have_what_the_policy_names(
    policy: str, claims: dict[str, Any], expected: str
) -> None:
    assert reason(policy, **claims) == expected
    in_a_rule = "[[policies.a.rules]]\npath = '/**'\n"
    assert reason(in_a_rule + policy, **claims) == expected


def test_old_login_is_told_by_its_own_error() -> None:
    """RFC 9470, section 3."""
    book = PolicyBook(parse_policies("[policies.a]\nmax_auth_age = 60", TOKEN))
    sent = [(b"authorization", b"Bearer " + make_token(good_claims(NOW, auth_time=0)))]
    request = PlainCheckRequest(b"GET", b"/verify/nginx/p/a", sent, True)
    found = decide(request, trusting().snapshot, CheckPaths(book), Times(NOW, BOOTTIME))
    assert not isinstance(found, Allowed)
    from verifier.check.answers import REFUSALS_WITHOUT_BODY

    answer = REFUSALS_WITHOUT_BODY[found.reason]
    challenge = dict(answer.headers)[b"WWW-Authenticate"]
    assert answer.status == 401
    assert b'error="insufficient_user_authentication"' in challenge


# --- identity headers from claims -----------------------------------------------------

HEADERS = """
[policies.a.headers]
X-Auth-Email = "email"
X-Auth-Groups = "groups"
X-Auth-Verified = "email_verified"
X-Auth-Realm-Roles = ["realm_access", "roles"]
"""


def test_policy_sends_claims_in_headers_of_its_own() -> None:
    _, sent = ask(
        HEADERS,
        email="a@b.test\r\nX-Auth-User: root",
        groups=["dev ops", "all,none"],
        email_verified=True,
        realm_access={"roles": ["r", 7]},
    )
    assert sent[b"X-Auth-Email"] == b"a@b.test%0D%0AX-Auth-User:%20root"
    assert sent[b"X-Auth-Groups"] == b"dev%20ops all%2Cnone"
    assert sent[b"X-Auth-Verified"] == b"true"
    assert sent[b"X-Auth-Realm-Roles"] == b"r 7"
    assert sent[b"X-Auth-Decision"] == b"allow"


def test_header_without_a_value_is_sent_empty() -> None:
    """R10: else the application would read one that the client wrote."""
    names = {b"X-Auth-Email", b"X-Auth-Groups", b"X-Auth-Verified"}
    for options in (GOOD, {"email": None, "groups": {}, "email_verified": 1.5}):
        _, sent = ask(HEADERS, **options)
        assert {sent[name] for name in names} == {b""}
    for policy in ("public = true\n", "optional = true\n", 'preflight = "allow"\n'):
        cors = CORS if "preflight" in policy else ()
        _, sent = ask(policy + HEADERS, method="OPTIONS", headers=cors)
        assert {sent[name] for name in names} == {b""}


def test_header_is_sent_with_a_stale_list_too() -> None:
    stale = trusting(fresh_for=-1)
    _, sent = ask('on_stale = "allow"\n' + HEADERS, trust=stale, email="a@b.test")
    assert sent[b"X-Auth-Decision"] == b"allow-stale"
    assert sent[b"X-Auth-Email"] == b"a@b.test"


def test_longest_names_fit_into_the_head_of_an_allow() -> None:
    names = [f"X-Auth-{number}{'n' * 24}" for number in range(8)]
    lines = "\n".join(f'{name} = "claim{n}"' for n, name in enumerate(names))
    policy = parse_policies(f"[policies.a.headers]\n{lines}", TOKEN)["a"]
    assert len(names[0]) == 32
    fixed = len(anonymous_answer(policy.token.headers).head)
    assert fixed <= MAX_ALLOW_HEAD_BYTES - 8_000 * 3 // 4 * 3


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ('Email = "email"', "headers.Email: a name is X-Auth-"),
        ('X-Forwarded-User = "sub"', "headers.X-Forwarded-User: a name is X-Auth-"),
        ('x-auth-subject = "email"', "headers.x-auth-subject: is there already"),
        ('X-Auth-Decision = "email"', "headers.X-Auth-Decision: is there already"),
        ('X-AUTH-A = "a"\nx-auth-a = "b"', "headers.x-auth-a: is there already"),
        ('"X-Auth_Email" = "email"', "headers.X-Auth_Email: a name is X-Auth-"),
        ('"X-Auth-E\\r\\nA" = "email"', "a name is X-Auth-"),
        ('X-Auth-Email = "sub"', "this claim is in another header"),
        ('X-Auth-A = "a"\nX-Auth-B = "a"', "this claim is in another header"),
        ("X-Auth-Email = 1", "must be the name of a claim"),
        ("X-Auth-Email = []", "must be the name of a claim"),
        (f"X-Auth-{'a' * 26} = 'a'", "at most 32 characters"),
    ],
)
def test_header_that_could_mislead_is_refused(lines: str, named: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policies(f"[policies.a.headers]\n{lines}", TOKEN)
    assert named in str(caught.value)


# --- the file -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            'required_scope = ["a"]',
            "policies.a.required_scope: there is no such field; "
            "the nearest is required_scopes",
        ),
        (
            'public = true\nrequired_scopes = ["a"]',
            "policies.a.required_scopes: has no effect beside public = true",
        ),
        (
            '[[policies.a.rules]]\npath = "/"\noptional = true\nmax_age = 9',
            "policies.a.rules[1].max_age: has no effect beside optional = true",
        ),
        ("public = true\noptional = true", "policies.a.optional: cannot be true"),
        (
            'public = true\n[[policies.a.rules]]\npath = "/"',
            "policies.a.public: a policy with rules needs it in a rule",
        ),
        ("public = 1", "policies.a.public: must be true or false"),
        ('preflight = "yes"', 'policies.a.preflight: must be "deny" or "allow"'),
        ("max_age = 0", "policies.a.max_age: must be 1.."),
        ("max_age = true", "policies.a.max_age: must be 1.."),
        ("max_auth_age = 1.5", "policies.a.max_auth_age: must be 1.."),
        ("client_ids = []", "policies.a.client_ids: must not be empty"),
        ("claims = 1", "policies.a.claims: must be a table"),
        ("claims = { a = [] }", "policies.a.claims.a: must be text"),
        ("claims = { a = 1.5 }", "policies.a.claims.a: must be text"),
        ("claims = { a = {} }", "policies.a.claims.a: must lead to a claim"),
        ("claims = {}", "policies.a.claims: must not be empty"),
        ("required_roles = []", "policies.a.required_roles: must not be empty"),
        (
            '[[policies.a.rules]]\npath = "/"\nmethods = []',
            "policies.a.rules[1].methods: must not be empty",
        ),
        *(
            (f'[[policies.a.rules]]\npath = "{path}"', "rules[1].path: * stands for a")
            for path in ("/admin*", "/a/***", "/*.css", "/%2A", "/%2a%2A", "/a/*/b*")
        ),
        (
            '[[policies.a.rules]]\npath = "/"\n' * 2_001,
            "policies.a.rules: must be at most 2000",
        ),
        ("headers = 1", "policies.a.headers: must be a table"),
        (
            '[[policies.a.rules]]\npath = "/"\n[[policies.a.rules]]\nhosts = ["a b"]',
            "policies.a.rules[2].hosts: must be a list of words",
        ),
        ('[[policies.a.rules]]\nhosts = ["a:1"]', "is no host without a port"),
        ('[[policies.a.rules]]\nhosts = ["a.*.b"]', "is no host without a port"),
        ('[[policies.a.rules]]\nhosts = ["*"]', "is no host without a port"),
        ('[[policies.a.rules]]\nhosts = ["*.*.b"]', "is no host without a port"),
        ('[[policies.a.rules]]\nmethods = ["GET"]', "rules[1].path: is missing"),
    ],
)
def test_file_that_is_wrong_is_refused_with_its_field(text: str, named: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policies(f"[policies.a]\n{text}", TOKEN)
    assert named in str(caught.value)


def test_claims_are_kept_for_the_policies_that_read_them_only() -> None:
    text = "[policies.a]\nclaims = { tenant = 'x' }\n[policies.b]"
    policies = parse_policies(text, TOKEN)
    assert policies["a"].token.kept_claims == {("tenant",)}
    # Of one audience: all keep the same claims, and so share one cache.
    assert policies["a"].token is not TOKEN
    assert policies["b"].token == policies["a"].token
    other = parse_policies(text + "\n[policies.c]\naudience = 'other'", TOKEN)["c"]
    assert other.token.kept_claims == frozenset()


def test_allow_names_each_header_once() -> None:
    headers = (ClaimHeader("X-Auth-Email", ("email",)),)
    answers = [anonymous_answer(headers)]
    book = parse_policies('[policies.a.headers]\nX-Auth-Email = "email"', TOKEN)
    assert book["a"].token.headers == headers
    for answer in answers:
        names = [name for name, _ in answer.headers]
        assert sorted(names) == sorted(
            [*IDENTITY_HEADERS, b"X-Auth-Email", b"Content-Length"]
        )


def test_estimate_of_a_fact_counts_the_claims_that_are_kept() -> None:
    """R47: the bound of a cache is in bytes, and a claim may be a long list."""
    groups = [f"{number:02x}" for number in range(700)]
    text = "[policies.a]\nclaims = { groups = '01' }\n[policies.a.headers]\n"
    token = parse_policies(f"{text}X-Auth-Groups = 'groups'", TOKEN)["a"].token
    signed = make_token(good_claims(NOW, groups=groups))
    keys = trusting().snapshot.keys
    cache = FactCache(max_entries=10, max_bytes=1 << 30)
    fact = cache.establish(b"Bearer " + signed, keys, token)
    values = fact.token.claims.kept[("groups",)]
    real = len(fact.withheld_allow.head) + sum(map(sys.getsizeof, values))
    assert real < cache.size_bytes < 2 * real
