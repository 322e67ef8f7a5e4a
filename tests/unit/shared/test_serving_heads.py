"""Heads that are refused even if the parser accepts them (RFC 9112).

llhttp refuses some of these today as well, so over a socket nothing would show that
ours is gone. The rest is `integration/test_served_ports.py`.
"""

from __future__ import annotations

import pytest

from shared.serving import heads
from shared.serving.limits import Limits

HOST = (b"host", b"a")
TE = (b"transfer-encoding", b"chunked")


def fault(version: str, *headers: tuple[bytes, bytes], method: bytes = b"GET") -> str:
    try:
        heads.require_served(version, method, b"/", [HOST, *headers], Limits())
    except heads.RefusedError as error:
        return error.reason
    return ""


@pytest.mark.parametrize("fold", [b"\r\n b", b"\r\n\tb"])
def test_folded_line_is_refused(fold: bytes) -> None:
    with pytest.raises(heads.RefusedError, match="folded"):
        heads.require_lines(b"GET / HTTP/1.1\r\nA: a" + fold + b"\r\n\r\n", Limits())


def test_other_versions_are_refused() -> None:
    assert fault("1.1") == fault("1.0") == ""
    assert {fault(version) for version in ("0.9", "1.2", "2.0")} == {"version"}


def test_framing_in_doubt_is_refused() -> None:
    length = (b"content-length", b"1")
    assert fault("1.1", length) == fault("1.1", TE) == ""
    assert fault("1.0", TE) == "framing"
    for doubtful in ([length, length], [length, TE], [(b"content-length", b"+1")]):
        assert fault("1.1", *doubtful) == "framing"
    assert fault("1.1", TE, TE) == "coding"


def test_length_is_the_content_length_of_the_head() -> None:
    assert heads.find_length([HOST]) == 0
    assert heads.find_length([(b"content-length", b"03 ")]) == 3
    assert heads.find_length([(b"content-length", b"0" * 5_000 + b"7")]) == 7
    assert heads.find_length([TE]) is None


@pytest.mark.parametrize(
    ("piece", "is_bare"),
    [
        (b"a\r\nb\r\n", False),
        (b"a\r\nb\r", False),
        (b"a\nb", True),
        (b"a\rb", True),
        (b"a\r\r\n", True),
        (b"\n", True),
    ],
)
def test_bare_ends_of_line(piece: bytes, is_bare: bool) -> None:
    assert heads.has_bare_end(piece) is is_bare
