"""Which heads are refused before an application sees them (RFC 9112), and the answers.

llhttp refuses malformed, repeated and list-valued lengths, a length beside a transfer
coding, and invalid characters in names and values. This module refuses what llhttp
accepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from shared.serving.limits import Limits
from shared.tracing.ids import REQUEST_ID, find_request_id

Headers = Sequence[tuple[bytes, bytes]]


class RefusedError(Exception):
    """A request that is not served.

    Attributes:
        words: the answer, after which the connection ends.
        reason: one word, for the log.
    """

    def __init__(self, words: bytes, reason: str) -> None:
        super().__init__(reason)
        self.words = words
        self.reason = reason


def _closing(status: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status


BAD_REQUEST: Final = _closing(b"400 Bad Request")
TIMED_OUT: Final = _closing(b"408 Request Timeout")
BODY_TOO_LARGE: Final = _closing(b"413 Content Too Large")
TARGET_TOO_LONG: Final = _closing(b"414 URI Too Long")
HEAD_TOO_LARGE: Final = _closing(b"431 Request Header Fields Too Large")
NOT_IMPLEMENTED: Final = _closing(b"501 Not Implemented")
CROWDED: Final = _closing(b"503 Service Unavailable")
BAD_VERSION: Final = _closing(b"505 HTTP Version Not Supported")

_ECHO: Final = b"%b: %%b\r\n\r\n" % REQUEST_ID.encode()

#: The bytes of a Host (RFC 3986, section 3.2.2, and a port).
_HOST_BYTES: Final = (
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    b"-._~!$&'()*+,;=%:[]"
)


def echo_request_id(words: bytes, headers: Headers) -> bytes:
    """Return an answer with the id of the refused request, if it has one.

    Args:
        words: one of the answers above.
        headers: of the request, names in lower case; none when they are not known.
    """
    request_id = find_request_id(headers)
    if not request_id:
        return words
    return words.removesuffix(b"\r\n") + _ECHO % request_id.encode()


def has_bare_end(piece: bytes | bytearray) -> bool:
    """Return whether a line of this piece ends in CR or LF alone (section 2.2).

    Readers disagree about such line ends, so they are refused.

    Args:
        piece: does not begin between CR and LF; may end there.
    """
    pairs = piece.count(b"\r\n")
    returns = piece.count(b"\r") - piece.endswith(b"\r")
    return piece.count(b"\n") != pairs or returns != pairs


def require_lines(head: bytes, limits: Limits) -> None:
    """Check the lines of a whole head.

    Raises:
        RefusedError: there are too many, one is folded (section 5.2), or the first one
            names another protocol; llhttp accepts two others.
    """
    if head[: head.find(b"\r\n")][-9:-1] != b" HTTP/1.":
        is_http = b" HTTP/" in head[: head.find(b"\r\n")]
        raise RefusedError(BAD_VERSION if is_http else BAD_REQUEST, "version")
    if head.count(b"\r\n") - 2 > limits.headers:
        raise RefusedError(HEAD_TOO_LARGE, "headers")
    if b"\r\n " in head or b"\r\n\t" in head:
        raise RefusedError(BAD_REQUEST, "folded")


def require_served(
    version: str, method: bytes, target: bytes, headers: Headers, limits: Limits
) -> None:
    """Check a head that the parser accepted.

    Args:
        version: `1.1`, `1.0`, or another that the parser accepts.
        method: as it came.
        target: as it came.
        headers: in order, names in lower case.
        limits: of the port.

    Raises:
        RefusedError: the request is not served.
    """
    if len(target) > limits.target_bytes:
        raise RefusedError(TARGET_TOO_LONG, "target")
    if version not in ("1.1", "1.0"):
        raise RefusedError(BAD_VERSION, "version")
    if method == b"CONNECT":
        # The bytes after it would belong to a tunnel, and there is none.
        raise RefusedError(NOT_IMPLEMENTED, "method")
    # Only origin form: an absolute target may name another host than Host does, and a
    # fragment is not part of a target. A reader that cuts either of them off sees
    # another path.
    if not target.startswith(b"/") or b"#" in target or not target.isascii():
        raise RefusedError(BAD_REQUEST, "target_form")
    _require_host(version, headers)
    _require_coding(version, headers)


def _require_host(version: str, headers: Headers) -> None:
    """Section 3.2: exactly one Host in HTTP/1.1, and a valid one."""
    hosts = _find_values(headers, b"host")
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        raise RefusedError(BAD_REQUEST, "host")
    if hosts and hosts[0].translate(None, _HOST_BYTES):
        raise RefusedError(BAD_REQUEST, "host")


def _require_coding(version: str, headers: Headers) -> None:
    """Sections 6.1 and 7.1: only `chunked`, not in HTTP/1.0, and without a length."""
    codings = _find_values(headers, b"transfer-encoding")
    lengths = _find_values(headers, b"content-length")
    if len(lengths) > 1 or (lengths and (codings or not lengths[0].isdigit())):
        raise RefusedError(BAD_REQUEST, "framing")
    if codings and version == "1.0":
        raise RefusedError(BAD_REQUEST, "framing")
    if codings and [coding.lower() for coding in codings] != [b"chunked"]:
        raise RefusedError(NOT_IMPLEMENTED, "coding")


def _find_values(headers: Headers, wanted: bytes) -> list[bytes]:
    """Return the values of a header, without the trailing space the parser leaves."""
    return [value.strip(b" \t") for name, value in headers if name == wanted]


def find_length(headers: Headers) -> int | None:
    """Return the length of the body that follows a head; None when it is chunked."""
    for name, value in headers:
        if name == b"transfer-encoding":
            return None
        if name == b"content-length":
            # `int` takes 4,300 digits at most, and a length may have leading zeros.
            return int(value.strip(b" \t").lstrip(b"0") or b"0")
    return 0
