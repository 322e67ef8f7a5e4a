"""The rules about logins: delays, networks, one-time tokens. No database is used."""

from __future__ import annotations

import pytest

from issuer.credentials.one_time_tokens import (
    LOGIN_CHALLENGE,
    PASSWORD_RESET,
    digest_token,
    make_token,
)
from issuer.credentials.sources import find_source, tells_callers_apart
from issuer.credentials.throttle import ThrottleLimits
from issuer.errors import InvalidGrantError
from issuer.http.forwarded_for import trust_proxies


def test_each_failure_doubles_the_wait_up_to_a_limit() -> None:
    """R34."""
    limits = ThrottleLimits(5, 50, 900)
    waits = [limits.delay_after(failures, 5) for failures in range(1, 18)]
    assert waits[:9] == [0, 0, 0, 0, 1, 2, 4, 8, 16]
    assert waits[13:] == [512, 900, 900, 900]
    assert limits.delay_after(10**9, 5) == 900


@pytest.mark.parametrize(
    ("blocked_until", "wait"),
    [(99, 0), (100, 0), (101, 1), (1_000, 900), (1_120, 900), (1_121, 0)],
)
def test_a_wait_is_never_longer_than_its_setting(blocked_until: int, wait: int) -> None:
    """R53: a clock that was ahead set the moment, by more than replicas differ."""
    assert ThrottleLimits(5, 50, 900).wait(blocked_until, now=100) == wait


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.7", "192.0.2.0/24"),
        ("192.0.2.255", "192.0.2.0/24"),
        ("2001:db8:1:22ff::1", "2001:db8:1:2200::/56"),
        ("2001:db8:1:2200::1", "2001:db8:1:2200::/56"),
        ("fe80::1%eth0", "fe80::/56"),
        ("unix", "unix"),
        ("local", "local"),
    ],
)
def test_a_source_is_the_network_one_subscriber_hops_in(
    address: str, source: str
) -> None:
    """R34."""
    assert find_source(address) == source


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "unix", "local", "10.0.0.1", "2001:db8::1"]
)
def test_a_gateway_is_no_source_of_failures(address: str) -> None:
    """R34, R62: behind it is everybody, unless it names its clients."""
    is_proxy = trust_proxies(["10.0.0.0/24", "2001:db8::1"])
    assert not tells_callers_apart(address, is_proxy)
    assert tells_callers_apart("192.0.2.7", is_proxy)
    assert tells_callers_apart("10.0.1.1", is_proxy)


@pytest.mark.parametrize(
    "change",
    [
        lambda token: "",
        lambda token: token[:-1],
        lambda token: token + "A",
        lambda token: token[:-1] + ("A" if token[-1] != "A" else "B"),
        lambda token: token[:4] + "B" + token[5:],
        lambda token: LOGIN_CHALLENGE + token[4:],
        lambda token: token[4:],
        lambda token: token.replace(token[-1], "\u00e9"),
        lambda token: token + "=",
    ],
)
def test_a_one_time_token_that_was_changed_is_not_ours(change) -> None:
    token = make_token(PASSWORD_RESET, bytes(range(32)))
    assert token.startswith("ghp_")
    assert len(digest_token(PASSWORD_RESET, token)) == 32
    with pytest.raises(InvalidGrantError):
        digest_token(PASSWORD_RESET, change(token))
