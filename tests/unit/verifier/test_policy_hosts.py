"""Rules match the host of the client."""

from __future__ import annotations

import pytest

from tests.support.policy_questions import (
    PUBLIC,
    reason,
)
from verifier.check.forward_auth import DIALECTS

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
