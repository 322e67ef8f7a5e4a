"""Addresses, URLs and networks that would break the start or trust too much are
named.
"""

from __future__ import annotations

import pytest

from tests.support.programs import HUSH, KEY, Desk


@pytest.mark.parametrize("name", ["BIND", "ADMIN_BIND"])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("::1:9000", "'::1:9000' is not HOST:PORT; write [::1]:9000"),
        (":::9000", "':::9000' is not HOST:PORT; write [::]:9000"),
        ("::1", "'::1' has no port; write [::1]:PORT"),
        ("9000", "'9000' has no host; write 127.0.0.1:9000, or [::]:9000 for every "
                 "address"),
        (":9000", "':9000' has no host; write 127.0.0.1:9000, or [::]:9000 for every "
                  "address"),
        ("*:9000", "'*:9000' has no host; write 127.0.0.1:9000, or [::]:9000 for every "
                   "address"),
        ("localhost:0", "'localhost:0' has no port from 1 to 65535"),
        ("localhost:99999", "'localhost:99999' has no port from 1 to 65535"),
        ("http://localhost:9000", "'http://localhost:9000' is a URL; write "
                                  "localhost:9000"),
        ("größe:9000", "must be ASCII; write the host's xn-- form"),
        ("127.1:9000", "'127.1' is not an IPv4 address; write four numbers"),
        ("a..b:9000", "'a..b' is not a host name"),
        ("[::1:9000", "'[::1:9000' is not HOST:PORT or unix:/PATH"),
        ("[::g]:9000", "'::g' is not an IPv6 address"),
        ("[127.0.0.1]:9000", "'127.0.0.1' is not an IPv6 address"),
        ("unix:run/x.sock", "'unix:run/x.sock' is not an absolute path; write "
                            "unix:/PATH"),
        ("unix://run/x.sock", "'unix://run/x.sock' is not an absolute path; write "
                              "unix:/PATH"),
        ("unix:/run/x/", "'unix:/run/x/' is a directory; write the path of a socket"),
        ("unix:/" + "x" * 107, "the path has 108 bytes, and a socket's has at most 107; "
                               "choose a shorter one"),
    ],
)  # fmt: skip
def test_an_invalid_listening_address_is_named(
    desk: Desk, name: str, text: str, says: str
) -> None:
    line = desk.refusal(desk.program.env(**{name: text}))
    assert line == f"{desk.program.prefix}{name}: {says}"


def test_a_secret_in_the_wrong_setting_is_not_repeated(desk: Desk) -> None:
    for name in ("BIND", "ADMIN_BIND", "LOG_LEVEL", "WORKERS", "AUDIENCE"):
        for text in (HUSH + "\n", f"k1:{KEY}", f"postgresql://u:{HUSH}@db/x", HUSH):
            if name == "AUDIENCE" and "\n" not in text:
                continue
            line = desk.refusal(desk.program.env(**{name: text}))
            assert line.startswith(f"{desk.program.prefix}{name}: ")
            assert "hush" not in line
            assert KEY not in line


@pytest.mark.parametrize(
    ("bind", "admin_bind"),
    [
        ("127.0.0.1:9000", "127.0.0.1:9000"),
        ("localhost:9000", "127.0.0.1:9000"),
        ("[::ffff:127.0.0.1]:9000", "127.0.0.1:9000"),
        ("[::1]:9000", "[0:0::1]:9000"),
        ("0.0.0.0:9000", "127.0.0.1:9000"),
        ("127.0.0.1:9000", "[::]:9000"),
        ("unix:/run/x.sock", "unix:///run//x.sock"),
    ],
)
def test_one_address_for_two_ports_is_refused(
    desk: Desk, bind: str, admin_bind: str
) -> None:
    line = desk.refusal(desk.program.env(BIND=bind, ADMIN_BIND=admin_bind))
    prefix = desk.program.prefix
    assert line == (
        f"{prefix}ADMIN_BIND: takes the address of {prefix}BIND; choose another port "
        "or path"
    )


@pytest.mark.parametrize(
    ("bind", "admin_bind"),
    [
        ("127.0.0.1:9000", "[::1]:9000"),
        ("127.0.0.1:9000", "127.0.0.2:9000"),
        ("my_host:9000", "gate-1.example.com.:9000"),
        ("unix:/run/x.sock", "unix:/run/y.sock"),
        ("[fe80::1%eth0]:9000", "[::]:9001"),
    ],
)
def test_two_addresses_are_taken(desk: Desk, bind: str, admin_bind: str) -> None:
    shown = desk.show(desk.program.env(BIND=bind, ADMIN_BIND=admin_bind))
    assert (shown.status, shown.err) == (0, "")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://issuer.test\r/x", "line break"),
        ("https://iss uer.test", "blank"),
        ("https://issuer\t.test", "control character"),
        ("https://user@issuer.test", "user name"),
        (f"https://user:{HUSH}@issuer.test", "user name"),
        (f"http://{HUSH}@127.0.0.1", "user name"),
        ("https://issuer.test?", "query"),
        ("https://issuer.test#", "query"),
        ("https://issuer.test:", "port"),
        ("https://issuer.test:0", "port"),
        ("https://issuer.test:99999", "port"),
        ("https://issuer.test:80a", "port"),
        ("https://größe.test", "xn--"),
        ("https://issuer.test/größe", "xn--"),
        ("https://a..b", "host"),
        ("https://-a.test", "host"),
        ("https://1.2.3", "host"),
        ("https://[fe80::1%25eth0]", "host"),
        ("https://[v1.x]", "host"),
        ("https://issuer.test\\@evil.test", "character"),
        ("https://issuer.test/%zz", "%"),
        ("https://issuer.test/../x", "segment"),
        ("https://issuer.test/" + "x" * 2_000, "2000"),
        ("<https://issuer.test>", "character"),
    ],
)
def test_a_url_that_would_break_the_start_is_named(
    desk: Desk, url: str, says: str
) -> None:
    names = ("URL",) if desk.program.prefix == "ISSUER_" else URLS_OF_THE_VERIFIER
    for name in names:
        line = desk.refusal(desk.program.env(**{name: url}))
        assert line.startswith(f"{desk.program.prefix}{name}: ")
        assert says in line
        assert "hush" not in line


URLS_OF_THE_VERIFIER = ("ISSUER_URL", "JWKS_URL", "FEED_URL")


@pytest.mark.parametrize(
    "url",
    ["https://my_issuer:8443", "https://[2001:db8::1]:8443/a%20b", "http://[::1]"],
)
def test_a_url_that_works_is_taken(desk: Desk, url: str) -> None:
    names = ("URL",) if desk.program.prefix == "ISSUER_" else URLS_OF_THE_VERIFIER
    for name in names:
        assert desk.show(desk.program.env(**{name: url})).status == 0


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("0.0.0.0/0", "must not be everybody"),
        ("::/0", "must not be everybody"),
        ("::ffff:0.0.0.0/96", "must not be everybody"),
        ("10.0.0.1/8", "write 10.0.0.0/8, or 10.0.0.1 for one address"),
        ("::ffff:10.0.0.1/104", "write 10.0.0.0/8, or 10.0.0.1 for one address"),
        ("gateway.test", "such as 10.1.2.3 or 10.1.2.0/24, with commas between them"),
        ("10.0.0.1 10.0.0.2", "with commas between them"),
        ("10.0.0.1;10.0.0.2", "with commas between them"),
        ("10.0.0.1:80", "with commas between them"),
        ("[::1]", "with commas between them"),
        ("fe80::1%eth0", "with commas between them"),
        ("010.0.0.1", "with commas between them"),
    ],
)
def test_a_list_of_networks_is_read_alike_in_both(
    desk: Desk, entry: str, says: str
) -> None:
    """R1."""
    is_issuer = desk.program.prefix == "ISSUER_"
    name = "TRUSTED_PROXIES" if is_issuer else "TRUSTED_PEERS"
    line = desk.refusal(desk.program.env(**{name: f"10.1.0.0/16, {entry}"}))
    assert line.startswith(f"{desk.program.prefix}{name}: ")
    assert says in line


def test_networks_of_mapped_addresses_are_those_of_ipv4(desk: Desk) -> None:
    """A dual-stack socket's IPv4 peers are compared as IPv4."""
    is_issuer = desk.program.prefix == "ISSUER_"
    name = "TRUSTED_PROXIES" if is_issuer else "TRUSTED_PEERS"
    listed = "::ffff:10.1.2.3,::ffff:10.2.0.0/112, 2001:db8::/64,\n"
    shown = desk.show(desk.program.env(**{name: listed}))
    shown_list = shown.values[f"{desk.program.prefix}{name}"]
    assert shown_list == "10.1.2.3,10.2.0.0/16,2001:db8::/64"
