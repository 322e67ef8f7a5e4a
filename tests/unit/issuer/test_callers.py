"""Whose address counts (R1): forwarded headers are believed from listed peers only."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from issuer.callers import build_caller_of

PROXIES = ("10.0.0.0/8", "2001:db8::1", "unix")


def request_from(
    peer: str | None, *forwarded: str, user_agent: bytes = b"curl/8"
) -> Request:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    return Request(
        {
            "type": "http",
            "client": (peer, 1) if peer is not None else None,
            "headers": [*headers, (b"user-agent", user_agent)],
        }
    )


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        pytest.param("192.0.2.1", ["203.0.113.9"], "192.0.2.1", id="stranger"),
        pytest.param("127.0.0.1", ["203.0.113.9"], "127.0.0.1", id="loopback unlisted"),
        pytest.param("10.1.1.1", [], "10.1.1.1", id="listed without header"),
        pytest.param("10.1.1.1", ["203.0.113.9"], "203.0.113.9", id="listed"),
        pytest.param(
            "10.1.1.1", ["1.1.1.1, 203.0.113.9"], "203.0.113.9", id="spoofed left part"
        ),
        pytest.param(
            "10.1.1.1",
            ["1.1.1.1, 203.0.113.9, 10.2.2.2"],
            "203.0.113.9",
            id="through two listed hops",
        ),
        pytest.param(
            "10.1.1.1", ["1.1.1.1", "203.0.113.9"], "203.0.113.9", id="two lines"
        ),
        pytest.param("10.1.1.1", ["203.0.113.9, junk"], "10.1.1.1", id="unreadable"),
        pytest.param("10.1.1.1", ["junk, 10.2.2.2"], "10.2.2.2", id="unreadable left"),
        pytest.param("10.1.1.1", ["203.0.113.9,"], "10.1.1.1", id="empty entry"),
        pytest.param("10.1.1.1", ["10.2.2.2"], "10.2.2.2", id="all listed"),
        pytest.param("::ffff:10.1.1.1", ["203.0.113.9"], "203.0.113.9", id="mapped"),
        pytest.param("2001:db8::1", ["2001:db8::9"], "2001:db8::9", id="IPv6"),
        pytest.param("2001:db8::2", ["2001:db8::9"], "2001:db8::2", id="IPv6 stranger"),
        pytest.param(None, ["203.0.113.9"], "203.0.113.9", id="unix socket"),
    ],
)
def test_the_nearest_untrusted_address_is_the_caller(
    peer: str | None, forwarded: list[str], address: str
) -> None:
    caller_of = build_caller_of(PROXIES)
    assert caller_of(request_from(peer, *forwarded)).address == address


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.1.1.1", "::1", None])
def test_nobody_is_believed_by_default(peer: str | None) -> None:
    caller_of = build_caller_of(())
    assert caller_of(request_from(peer, "203.0.113.9")).address == (peer or "unix")


def test_other_forwarding_headers_are_not_read() -> None:
    request = Request(
        {
            "type": "http",
            "client": ("10.1.1.1", 1),
            "headers": [
                (b"forwarded", b"for=203.0.113.9"),
                (b"x-real-ip", b"203.0.113.9"),
                (b"x-client-ip", b"203.0.113.9"),
                (b"true-client-ip", b"203.0.113.9"),
            ],
        }
    )
    assert build_caller_of(PROXIES)(request).address == "10.1.1.1"


@pytest.mark.parametrize(
    ("user_agent", "label"),
    [
        (b"curl/8", "curl/8"),
        (b"x" * 300, "x" * 200),
        (b"evil\x1b[2J", ""),
        (b"caf\xe9", "café"),
    ],
)
def test_the_device_label_is_short_and_plain(user_agent: bytes, label: str) -> None:
    caller_of = build_caller_of(())
    caller = caller_of(request_from("192.0.2.1", user_agent=user_agent))
    assert caller.device_label == label


def test_a_misspelt_proxy_stops_the_start() -> None:
    with pytest.raises(
        ValueError, match="does not appear to be an IPv4 or IPv6 network"
    ):
        build_caller_of(("10.0.0",))
