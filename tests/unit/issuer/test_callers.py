"""The address that counts (R1, R62): forwarded headers are believed from listed peers
only.
"""

from __future__ import annotations

import logging
import re

import pytest
from starlette.requests import Request

from issuer.errors import InvalidRequestError
from issuer.http.callers import _REFUSED, build_caller_of
from shared.log import JsonFormatter

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
        pytest.param(
            "10.1.1.1",
            ["junk, unknown,, 203.0.113.9"],
            "203.0.113.9",
            id="unreadable left part",
        ),
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


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7:51234", "203.0.113.7"),
        ("203.0.113.7:0", "203.0.113.7"),
        ("  203.0.113.7:51234\t", "203.0.113.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("2001:DB8:0:0::7", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:443", "2001:db8::7"),
        ("fe80::7%eth0", "fe80::7"),
        ("fe80::7%25eth0.100", "fe80::7"),
        ("[fe80::7%eth0]:443", "fe80::7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("[::ffff:203.0.113.7]:51234", "203.0.113.7"),
        ("::ffff:cb00:7107", "203.0.113.7"),
        ("192.168.7.7", "192.168.7.7"),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
    ],
)
def test_r62_every_form_that_gateways_write_is_read(written: str, address: str) -> None:
    caller_of = build_caller_of(PROXIES)
    assert caller_of(request_from("10.1.1.1", written)).address == address
    behind = caller_of(request_from("10.1.1.1", f"1.1.1.1,{written} , 10.2.2.2:80"))
    assert behind.address == address


@pytest.mark.parametrize(
    "written",
    [
        pytest.param("", id="nothing"),
        pytest.param(" \t", id="blanks"),
        pytest.param("203.0.113.9,", id="empty last element"),
        pytest.param("203.0.113.9,, 10.2.2.2", id="empty element in between"),
        pytest.param("junk", id="word"),
        pytest.param("203.0.113.9, junk", id="word behind an address"),
        pytest.param("junk, 10.2.2.2", id="word behind a listed hop"),
        pytest.param("unknown", id="RFC 7239 unknown"),
        pytest.param("_hidden", id="RFC 7239 obfuscated"),
        pytest.param("203.0.113.7:_port", id="RFC 7239 obfuscated port"),
        pytest.param("for=203.0.113.7", id="RFC 7239 pair"),
        pytest.param('"[2001:db8::7]:443"', id="quoted"),
        pytest.param("203.0.113.7 203.0.113.8", id="two without a comma"),
        pytest.param("203.0.113.7:", id="no port"),
        pytest.param("203.0.113.7:http", id="port by name"),
        pytest.param("203.0.113.7:65536", id="port too large"),
        pytest.param("203.0.113.7:000080", id="port too long"),
        pytest.param("203.0.113.7%eth0", id="zone of IPv4"),
        pytest.param("[203.0.113.7]:80", id="IPv4 in brackets"),
        pytest.param("[2001:db8::7", id="bracket not closed"),
        pytest.param("[2001:db8::7]443", id="no colon before the port"),
        pytest.param("fe80::7%", id="empty zone"),
        pytest.param("fe80::7%" + "z" * 500, id="long zone"),
        pytest.param("fe80::7%a b", id="blank in a zone"),
        pytest.param("203.0.113.007", id="leading zeros"),
        pytest.param("203.0.113", id="three parts"),
        pytest.param("3405803783", id="one number"),
        pytest.param("0xcb.0.0x71.7", id="hexadecimal"),
        pytest.param("203.0.113.0/24", id="network"),
        pytest.param("gateway.example", id="name"),
        pytest.param("https://203.0.113.7", id="URL"),
        pytest.param("\u0662.0.0.1", id="Arabic digit"),
        pytest.param("0.0.0.0", id="any IPv4 address"),
        pytest.param("::", id="any IPv6 address"),
        pytest.param("224.0.0.1", id="multicast"),
        pytest.param("255.255.255.255", id="broadcast"),
        pytest.param("x" * 100_000, id="100 kB"),
        pytest.param(",".join(["10.2.2.2"] * 20_000), id="20,000 listed hops"),
    ],
)
def test_r62_anything_else_is_refused_and_never_counts_as_the_proxy(
    written: str,
) -> None:
    """authentik 25679, firezone 12270: one attacker's failures slowed everybody."""
    encoded = written.encode()
    request = request_from("10.1.1.1")
    request.scope["headers"].append((b"x-forwarded-for", encoded))
    with pytest.raises(InvalidRequestError, match=r"^X-Forwarded-For: ") as refusal:
        build_caller_of(PROXIES)(request)
    shown = refusal.value.description
    # RFC 6749, section 5.2; and the same for every header, so it repeats none of it.
    assert re.fullmatch(r"[ !#-\[\]-~]+", shown)
    assert shown == _REFUSED


def test_the_client_cannot_have_its_own_request_refused_by_another_line() -> None:
    """Addresses left of the client's own address are the client's invention."""
    caller_of = build_caller_of(PROXIES)
    caller = caller_of(
        request_from("10.1.1.1", "unknown", "", "203.0.113.9:1, 10.2.2.2")
    )
    assert caller.address == "203.0.113.9"


@pytest.mark.parametrize(
    ("trusted", "address"),
    [(("10.0.0.0/8", "unix"), "203.0.113.9"), (PROXIES[:1], "unix")],
)
def test_a_hop_through_a_unix_socket_is_read(
    trusted: tuple[str, ...], address: str
) -> None:
    """nginx names a client on a unix socket `unix:`."""
    request = request_from("10.1.1.1", "203.0.113.9, unix:")
    assert build_caller_of(trusted)(request).address == address


def test_a_peer_with_a_zone_is_the_address_without_it() -> None:
    caller_of = build_caller_of(("fe80::/10",))
    assert caller_of(request_from("fe80::9%eth0")).address == "fe80::9"
    assert caller_of(request_from("fe80::9%eth0", "203.0.113.9")).address == (
        "203.0.113.9"
    )


def test_a_peer_that_cannot_be_read_is_not_trusted() -> None:
    """R43: it is no unix socket either, for any list of trusted peers."""
    caller_of = build_caller_of(PROXIES)
    assert caller_of(request_from("testclient", "203.0.113.9")).address == "unreadable"


def test_a_network_of_mapped_addresses_is_the_ipv4_network() -> None:
    caller_of = build_caller_of(("::ffff:10.0.0.0/104",))
    assert caller_of(request_from("10.1.1.1", "203.0.113.9")).address == "203.0.113.9"


def test_r62_refusals_are_logged_once_a_minute_with_their_number(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 1_000.0
    caller_of = build_caller_of(PROXIES, elapsed=lambda: now)
    shown = []
    for written in ["_secret", *["unknown"] * 500]:
        with pytest.raises(InvalidRequestError):
            caller_of(request_from("10.1.1.1", written))
    shown.append(len(caplog.records))
    now += 60
    for _ in range(2):
        with pytest.raises(InvalidRequestError):
            caller_of(request_from("10.9.9.9", ""))
    shown.append(len(caplog.records))
    assert shown == [1, 2]
    lines = [JsonFormatter("issuer").format(record) for record in caplog.records]
    assert '"event":"forwarded.unusable"' in lines[0]
    assert '"peer":"10.1.1.1","reason":"hidden","unlogged":0' in lines[0]
    assert '"peer":"10.9.9.9","reason":"empty","unlogged":500' in lines[1]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert "_secret" not in "".join(lines)


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.1.1.1", "::1", None])
def test_forwarded_headers_are_ignored_by_default(peer: str | None) -> None:
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
