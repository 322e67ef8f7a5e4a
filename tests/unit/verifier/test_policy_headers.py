"""Identity headers from claims."""

from __future__ import annotations

import sys

import pytest

from shared.identity_headers import MAX_ALLOW_HEAD_BYTES
from tests.support.policy_questions import (
    CORS,
    GOOD,
    NOW,
    TOKEN,
    ask,
    trusting,
)
from tests.support.tokens import good_claims, make_token
from verifier.check.answers import IDENTITY_HEADERS, anonymous_answer
from verifier.check.cache import FactCache
from verifier.check.decision import Fact
from verifier.check.policy import (
    ClaimHeader,
    PolicyError,
)
from verifier.check.verify import read_signed
from verifier.policies.document import parse_policies

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
    cache = FactCache(max_entries=10, max_bytes=1 << 30)
    fact = Fact(read_signed(signed, trusting().snapshot, token, 0), token.headers)
    cache.keep(b"Bearer " + signed, fact)
    values = fact.token.claims.kept[("groups",)]
    real = len(fact.withheld_allow.head) + sum(map(sys.getsizeof, values))
    assert real < cache.size_bytes < 2 * real
