"""Requests that two readers may take for different ones, as data.

Each case is written anew from a published description: the corpus of llhttp's tests, a
clause of RFC 9112, or an advisory, which `source` names. `tests/support/smuggling.py`
sends a case to a port of ours and judges what comes back; every target is unknown, so
that each request that is served is answered 404.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple


class Must(Enum):
    """The required outcome."""

    #: The head is refused: one answer of 4xx or 5xx that is no 404, and the end.
    REFUSE = "refuse"
    #: The body is malformed: at most one answer of any kind, and the end.
    END = "end"
    #: Served; the bytes after it are never taken for a request.
    SERVE_ONE = "serve one"
    #: Served, and the second request too, unless the connection ends behind the first.
    SERVE_TWO = "serve two"


class Case(NamedTuple):
    """One case.

    Attributes:
        name: describes the fault.
        source: where it was published.
        sent: the bytes.
        must: the required outcome.
    """

    name: str
    source: str
    sent: bytes
    must: Must


_LAST: Final = b"GET /smuggled HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


#: A body that reads as a request: a reader that takes it for one answers three times.
_INNER: Final = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


def _get(
    *lines: bytes,
    line: bytes = b"GET /x HTTP/1.1",
    host: bool = True,
    inner: bytes = b"",
) -> bytes:
    """Return a head of these lines, behind which `inner` and another request stand."""
    hosts = (b"Host: a",) if host else ()
    return b"\r\n".join((line, *hosts, *lines, b"", b"")) + inner + _LAST


def _post(*lines: bytes, body: bytes = b"") -> bytes:
    """Return a request with this body, behind which another one stands."""
    head = b"\r\n".join((b"POST /x HTTP/1.1", b"Host: a", *lines, b"", b""))
    return head + body + _LAST


def _chunked(body: bytes) -> bytes:
    return _post(b"Transfer-Encoding: chunked", body=body)


_TE: Final = b"Transfer-Encoding: chunked"
_ABC: Final = b"3\r\nabc\r\n0\r\n\r\n"
_REFUSE, _END, _ONE, _TWO = Must.REFUSE, Must.END, Must.SERVE_ONE, Must.SERVE_TWO

LENGTHS: Final = (
    Case(
        "length and chunked", "RFC 9112 6.1", _post(b"Content-Length: 3", _TE), _REFUSE
    ),
    Case(
        "chunked and length", "RFC 9112 6.3", _post(_TE, b"Content-Length: 3"), _REFUSE
    ),
    Case(
        "length and identity",
        "llhttp content-length",
        _post(b"Content-Length: 1", b"Transfer-Encoding: identity", body=b"a"),
        _REFUSE,
    ),
    Case(
        "length and empty codings",
        "llhttp transfer-encoding",
        _post(
            b"Content-Length: 10", *[b"Transfer-Encoding:"] * 3, body=b"2\r\nAA\r\n0"
        ),
        _REFUSE,
    ),
    Case(
        "differing lengths",
        "llhttp content-length",
        _post(b"Content-Length: 1", b"Content-Length: 2", body=b"ab"),
        _REFUSE,
    ),
    Case(
        "repeated lengths",
        "RFC 9112 6.3",
        _post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"),
        _REFUSE,
    ),
    Case(
        "list of lengths",
        "CVE-2018-7159",
        _post(b"Content-Length: 3, 3", body=b"abc"),
        _REFUSE,
    ),
    Case(
        "signed length",
        "CVE-2022-24801",
        _post(b"Content-Length: +3", body=b"abc"),
        _REFUSE,
    ),
    Case("negative length", "GO-2019-0512", _post(b"Content-Length: -1"), _REFUSE),
    Case(
        "length with underscore",
        "CVE-2023-47627",
        _post(b"Content-Length: 1_0", body=b"a" * 10),
        _REFUSE,
    ),
    Case(
        "hexadecimal length",
        "CVE-2022-24801",
        _post(b"Content-Length: 0x3", body=b"abc"),
        _REFUSE,
    ),
    Case(
        "two numbers", "llhttp content-length", _post(b"Content-Length: 4 2"), _REFUSE
    ),
    Case("empty length", "llhttp content-length", _post(b"Content-Length:"), _REFUSE),
    Case(
        "length overflow",
        "llhttp content-length",
        _post(b"Content-Length: 18446744073709551619", body=b"abc"),
        _REFUSE,
    ),
    Case(
        "length in other digits",
        "CVE-2023-47627",
        _post("Content-Length: \u0663".encode(), body=b"abc"),
        _REFUSE,
    ),
    Case(
        "zeroes before a length",
        "llhttp content-length",
        _post(b"Content-Length: 003", body=b"abc"),
        _TWO,
    ),
    Case(
        "space behind a length",
        "llhttp content-length",
        _post(b"Content-Length:  3 ", body=b"abc"),
        _TWO,
    ),
    Case(
        "length of a GET",
        "oauth2_proxy 442",
        _get(b"Content-Length: %d" % len(_INNER), inner=_INNER),
        _TWO,
    ),
)

CODINGS: Final = (
    Case(
        "unknown coding",
        "llhttp transfer-encoding",
        _post(b"Transfer-Encoding: pigeons"),
        _REFUSE,
    ),
    Case(
        "coding that begins as chunked",
        "CVE-2022-32213",
        _post(b"Transfer-Encoding: chunkedchunked", body=_ABC),
        _REFUSE,
    ),
    Case(
        "chunked is not the last",
        "CVE-2022-32215",
        _post(b"Transfer-Encoding: chunked, identity", body=_ABC),
        _REFUSE,
    ),
    Case(
        "chunked is not alone",
        "RFC 9112 6.1",
        _post(b"Transfer-Encoding: gzip, chunked", body=_ABC),
        _REFUSE,
    ),
    Case(
        "two coding lines",
        "CVE-2020-8287",
        _post(_TE, b"Transfer-Encoding: x"),
        _REFUSE,
    ),
    Case("chunked twice", "RFC 9112 6.1", _post(_TE, _TE, body=_ABC), _REFUSE),
    Case(
        "chunked in a list twice",
        "RFC 9112 6.1",
        _post(b"Transfer-Encoding: chunked, chunked", body=_ABC),
        _REFUSE,
    ),
    Case(
        "quoted coding",
        "CVE-2019-15605",
        _post(b'Transfer-Encoding: "chunked"', body=_ABC),
        _REFUSE,
    ),
    Case(
        "vertical tab before a coding",
        "CVE-2019-16785",
        _post(b"Transfer-Encoding: \x0bchunked", body=_ABC),
        _REFUSE,
    ),
    Case(
        "empty coding",
        "CVE-2022-35256",
        _post(b"Transfer-Encoding:", body=_ABC),
        _REFUSE,
    ),
    Case(
        "chunked in HTTP/1.0",
        "RFC 9112 6.1",
        _get(_TE, line=b"POST /x HTTP/1.0"),
        _REFUSE,
    ),
    Case(
        "space before a colon",
        "CVE-2021-22959",
        _post(b"Transfer-Encoding : chunked"),
        _REFUSE,
    ),
    Case(
        "tab before a colon", "CVE-2019-16276", _post(b"Content-Length\t: 3"), _REFUSE
    ),
    Case(
        "space before the first name",
        "CVE-2024-27982",
        _get(b"Host: a", line=b"POST /x HTTP/1.1\r\n Content-Length: 3", host=False),
        _REFUSE,
    ),
    Case(
        "coding in another case",
        "RFC 9112 7",
        _post(b"tRANSFER-eNCODING: CHUNKED", body=_ABC),
        _ONE,
    ),
)

LINES: Final = (
    Case(
        "bare LF ends a head", "RFC 9112 2.2", b"GET /x HTTP/1.1\nHost: a\n\n", _REFUSE
    ),
    Case(
        "bare LF ends a line",
        "CVE-2022-32214",
        _get(b"A: b\nTransfer-Encoding: x"),
        _REFUSE,
    ),
    Case(
        "bare CR in a value",
        "CVE-2023-30589",
        _get(b"A: \rTransfer-Encoding: x"),
        _REFUSE,
    ),
    Case("bare CR ends the head", "CVE-2025-23167", _get(b"A: b\r\n\rX: c"), _REFUSE),
    Case(
        "bare CR in a name",
        "llhttp content-length",
        _get(b"Content\rLength: 3"),
        _REFUSE,
    ),
    Case(
        "bare CR in the first line",
        "RFC 9112 2.2",
        _get(line=b"GET /\rx HTTP/1.1"),
        _REFUSE,
    ),
    Case(
        "folded coding",
        "CVE-2022-32215",
        _get(b"Transfer-Encoding:\r\n chunked"),
        _REFUSE,
    ),
    Case("folded value", "RFC 9112 5.2", _get(b"A: b\r\n\tc"), _REFUSE),
    Case("NUL in a value", "RFC 9110 5.5", _get(b"A: b\x00c"), _REFUSE),
    Case("NUL in a name", "RFC 9110 5.1", _get(b"A\x00: b"), _REFUSE),
    Case("line without a colon", "CVE-2019-20444", _get(b"Content-Length"), _REFUSE),
    Case("empty name", "CVE-2023-25725", _get(b": b", b"Content-Length: 3"), _REFUSE),
    Case("space in a name", "RFC 9112 5.1", _get(b"Content Length: 3"), _REFUSE),
    Case("bracket in a name", "RFC 9110 5.6.2", _get(b"[: b"), _REFUSE),
    Case("many empty lines", "RFC 9112 2.2", b"\r\n" * 9 + _get(), _REFUSE),
    Case("an empty line", "RFC 9112 2.2", b"\r\n" + _get(b"Connection: close"), _ONE),
)

TARGETS: Final = (
    Case("no Host", "RFC 9112 3.2", _get(host=False), _REFUSE),
    Case("second Host", "RFC 9112 3.2", _get(b"Host: b"), _REFUSE),
    Case("second Host, the same", "RFC 9112 3.2", _get(b"hOST: a"), _REFUSE),
    Case("Host with a path", "RFC 9112 3.2", _get(b"Host: a/b", host=False), _REFUSE),
    Case("Host with user", "RFC 9112 3.2", _get(b"Host: a@b", host=False), _REFUSE),
    Case("fragment", "RFC 9112 3.2", _get(line=b"GET /x#/../y HTTP/1.1"), _REFUSE),
    Case(
        "space in the target", "RFC 9112 3.2", _get(line=b"GET /x y HTTP/1.1"), _REFUSE
    ),
    Case(
        "tab in the target", "RFC 9112 3.2", _get(line=b"GET /x\ty HTTP/1.1"), _REFUSE
    ),
    Case(
        "bytes over 127", "RFC 9112 3.2", _get(line=b"GET /\xc3\xa9 HTTP/1.1"), _REFUSE
    ),
    Case(
        "authority form", "RFC 9112 3.2.3", _get(line=b"CONNECT a:80 HTTP/1.1"), _REFUSE
    ),
    Case(
        "tunnel to a path", "RFC 9110 9.3.6", _get(line=b"CONNECT /x HTTP/1.1"), _REFUSE
    ),
    Case("no target", "RFC 9112 3", _get(line=b"GET  HTTP/1.1"), _REFUSE),
    Case("no version", "RFC 9112 3", _get(line=b"GET /x"), _REFUSE),
    Case("version 0.9", "RFC 9112 2.3", _get(line=b"GET /x HTTP/0.9"), _REFUSE),
    Case("version 1.2", "RFC 9112 2.3", _get(line=b"GET /x HTTP/1.2"), _REFUSE),
    Case("version 2.0", "RFC 9112 2.3", _get(line=b"GET /x HTTP/2.0"), _REFUSE),
    Case("other protocol", "RFC 9112 2.3", _get(line=b"GET /x RTSP/1.0"), _REFUSE),
    Case("lower-case method", "RFC 9110 9.1", _get(line=b"get /x HTTP/1.1"), _REFUSE),
    Case("unknown method", "RFC 9110 9.1", _get(line=b"GETS /x HTTP/1.1"), _REFUSE),
    Case(
        "preface of HTTP/2",
        "RFC 9113 3.4",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _LAST,
        _REFUSE,
    ),
    Case(
        "handshake of TLS",
        "RFC 8446 4.1.2",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        _REFUSE,
    ),
)

CHUNKS: Final = (
    Case("nothing follows a chunked body", "RFC 9112 11.2", _chunked(_ABC), _ONE),
    Case(
        "chunk extension",
        "RFC 9112 7.1.1",
        _chunked(b"3;a=b\r\nabc\r\n0\r\n\r\n"),
        _ONE,
    ),
    Case(
        "quoted extension",
        "llhttp transfer-encoding",
        _chunked(b'3;a="b"\r\nabc\r\n0\r\n\r\n'),
        _ONE,
    ),
    Case(
        "LF in an extension",
        "CVE-2024-52304",
        _chunked(b"3;a\nb\r\nabc\r\n0\r\n\r\n"),
        _END,
    ),
    Case(
        "CR in an extension",
        "CVE-2021-22960",
        _chunked(b"3;a\rb\r\nabc\r\n0\r\n\r\n"),
        _END,
    ),
    Case(
        "LF ends an extension",
        "CVE-2025-55315",
        _chunked(b"3;a\nabc\r\n0\r\n\r\n"),
        _END,
    ),
    Case("LF ends a size", "CVE-2025-22871", _chunked(b"3\nabc\r\n0\r\n\r\n"), _END),
    Case("CR ends a size", "CVE-2021-22960", _chunked(b"3\rabc\r\n0\r\n\r\n"), _END),
    Case(
        "other bytes end a chunk",
        "CVE-2025-43859",
        _chunked(b"3\r\nabcXX0\r\n\r\n"),
        _END,
    ),
    Case("LF ends a chunk", "CVE-2023-46137", _chunked(b"3\r\nabc\n0\r\n\r\n"), _END),
    Case(
        "chunk longer than its size",
        "CVE-2022-32213",
        _chunked(b"3\r\nabcd\r\n0\r\n\r\n"),
        _END,
    ),
    Case(
        "prefix of a size", "CVE-2022-24801", _chunked(b"0x3\r\nabc\r\n0\r\n\r\n"), _END
    ),
    Case("signed size", "CVE-2022-24801", _chunked(b"+3\r\nabc\r\n0\r\n\r\n"), _END),
    Case("negative size", "CVE-2013-2028", _chunked(b"-3\r\nabc\r\n0\r\n\r\n"), _END),
    Case(
        "size overflow",
        "CVE-2015-3183",
        _chunked(b"10000000000000003\r\nabc\r\n"),
        _END,
    ),
    Case(
        "space before a size", "RFC 9112 7.1", _chunked(b" 3\r\nabc\r\n0\r\n\r\n"), _END
    ),
    Case(
        "space behind a size",
        "llhttp transfer-encoding",
        _chunked(b"3 \r\nabc\r\n0\r\n\r\n"),
        _END,
    ),
    Case("no size", "llhttp transfer-encoding", _chunked(b"\r\n0\r\n\r\n"), _END),
    Case(
        "no last chunk", "llhttp transfer-encoding", _chunked(b"3\r\nfoo\r\n\r\n"), _END
    ),
    Case(
        "broken quotes",
        "llhttp transfer-encoding",
        _chunked(b'3;a="b\r\nabc\r\n0\r\n\r\n'),
        _END,
    ),
    Case("trailer", "RFC 9112 7.1.2", _chunked(b"0\r\nA: b\r\n\r\n"), _END),
    Case(
        "trailer that frames",
        "CVE-2024-24549",
        _chunked(b"0\r\nContent-Length: 3\r\n\r\n"),
        _END,
    ),
    Case(
        "trailer with LF", "CVE-2023-46589", _chunked(b"0\r\nA: b\nC: d\r\n\r\n"), _END
    ),
)

UPGRADES: Final = (
    Case(
        "WebSocket",
        "RFC 9110 7.8",
        _get(
            b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"
        ),
        _TWO,
    ),
    Case(
        "h2c with a body",
        "RFC 9113 3.1",
        _post(
            b"Connection: Upgrade, HTTP2-Settings",
            b"Upgrade: h2c",
            b"HTTP2-Settings: AAMAAABk",
            b"Content-Length: %d" % len(_INNER),
            body=_INNER,
        ),
        _TWO,
    ),
    Case(
        "h2c with a chunked body",
        "RFC 9113 3.1",
        _post(b"Connection: Upgrade", b"Upgrade: h2c", _TE, body=_ABC),
        _ONE,
    ),
)

CASES: Final = (*LENGTHS, *CODINGS, *LINES, *TARGETS, *CHUNKS, *UPGRADES)
