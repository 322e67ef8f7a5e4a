"""Faults and framing of a request head (RFC 9112).

Nearly every head has one Host and no other header of `NOTED`; only the others are
checked here. llhttp itself refuses bare CR and LF, obsolete folding, repeated or
malformed lengths, and both framings together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from verifier.wire.budgets import HEADERS, TARGET_BYTES

#: The headers that decide how a message is framed and whether its connection is kept.
NOTED: Final = frozenset(
    {
        b"host",
        b"connection",
        b"content-length",
        b"transfer-encoding",
        b"trailer",
        b"expect",
    }
)
#: Noted for a head with the method CONNECT: tunnel data may follow it.
CONNECT_MARK: Final = (b":connect", b"")

CLOSE: Final = b"Connection: close\r\n\r\n"


def _closing(status: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: 0\r\n" % status + CLOSE


BAD_REQUEST: Final = _closing(b"400 Bad Request")
TIMED_OUT: Final = _closing(b"408 Request Timeout")
TARGET_TOO_LONG: Final = _closing(b"414 URI Too Long")
TOO_LARGE: Final = _closing(b"431 Request Header Fields Too Large")
BAD_VERSION: Final = _closing(b"505 HTTP Version Not Supported")

#: Why a connection is ended after such an answer: the label of the metric.
FAULTS: Final = {
    BAD_REQUEST: "bad_request",
    TIMED_OUT: "head_time",
    TARGET_TOO_LONG: "target_too_long",
    TOO_LARGE: "head_too_large",
    BAD_VERSION: "version",
}
#: Without an answer: the peer did not read, or sent more than is kept or discarded.
UNREAD: Final = "unread"
EXCESS: Final = "excess"

#: The bytes allowed in a Host (RFC 3986, section 3.2.2, and a port).
_HOST_BYTES: Final = (
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    b"-._~!$&'()*+,;=%:[]"
)

Noted = Sequence[tuple[bytes, bytes]]


def find_fault(version: str, target: bytes, noted: Noted, headers: int) -> bytes:
    """Return the refusal of a faulty head; empty for a good one.

    Args:
        version: `1.1`, `1.0`, or another one that the parser accepts.
        target: the raw request target.
        noted: the headers in `NOTED`, names in lower case, in order.
        headers: the number of all headers.
    """
    if headers > HEADERS:
        return TOO_LARGE
    if len(target) > TARGET_BYTES:
        return TARGET_TOO_LONG
    if version not in ("1.1", "1.0"):
        return BAD_VERSION
    # A target has no fragment (section 3.2). A program that cuts it off and one that
    # does not would see two paths.
    if b"#" in target or not target.isascii():
        return BAD_REQUEST
    return _find_host_fault(version, noted) or _find_coding_fault(version, noted)


def _find_host_fault(version: str, noted: Noted) -> bytes:
    """Section 3.2: exactly one Host in HTTP/1.1, and a valid one."""
    hosts = [value for name, value in noted if name == b"host"]
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        return BAD_REQUEST
    if hosts and hosts[0].translate(None, _HOST_BYTES):
        return BAD_REQUEST
    return b""


def _find_coding_fault(version: str, noted: Noted) -> bytes:
    """Section 6.1: `chunked` alone, and not in HTTP/1.0."""
    codings = [value for name, value in noted if name == b"transfer-encoding"]
    if not codings:
        return b""
    if version == "1.0" or [coding.lower() for coding in codings] != [b"chunked"]:
        return BAD_REQUEST
    return b""


def may_be_followed(noted: Noted) -> bool:
    """Return whether bytes that are not a request may follow this head (R45).

    A gateway may announce a body and never send it, so the next check follows instead;
    an attacker could choose where the body would end.
    """
    for name, value in noted:
        if name == b"content-length":
            # The parser has checked that it is a number; `int` takes 4,300 digits at
            # most.
            if value.strip(b"0 \t"):
                return True
        elif name not in (b"host", b"connection"):
            return True
    return False
