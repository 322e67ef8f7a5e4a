"""The words for failures between us and a server, and the parts that may be shown.

The error classes of a client library name the place in the library. An operator needs
the thing to check: name, address, authority or time.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import h11
import httpx

#: Bytes of a server's answer that are shown at most.
EXCERPT_BYTES: Final = 200
#: Bytes to read for an excerpt: a secret is found only if it is complete.
EXCERPT_READ: Final = 4_096
#: Text that looks like a credential: a segment of a JWT, a random token.
_TOKEN: Final = re.compile(r"[A-Za-z0-9_+=-]{32,}")
_HIDDEN: Final = "[...]"


class FailureKind(StrEnum):
    """The kinds of failures, one word each."""

    NO_SUCH_HOST = "no_such_host"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    UNKNOWN_AUTHORITY = "unknown_authority"
    WRONG_NAME = "wrong_name"
    CERTIFICATE_EXPIRED = "certificate_expired"
    CERTIFICATE_NOT_YET_VALID = "certificate_not_yet_valid"
    CERTIFICATE_REFUSED = "certificate_refused"
    TLS_FAILED = "tls_failed"
    CLOSED_EARLY = "closed_early"
    NOT_HTTP = "not_http"
    REDIRECT = "redirect"
    STATUS = "status"
    TOO_LARGE = "too_large"
    BAD_ENCODING = "bad_encoding"
    BAD_ANSWER = "bad_answer"
    FAILED = "failed"


#: Failures that depend on the URL: the wrong server may have been asked.
FAULTS_OF_URL: Final = frozenset(
    {
        FailureKind.NO_SUCH_HOST,
        FailureKind.REFUSED,
        FailureKind.UNREACHABLE,
        FailureKind.TIMEOUT,
        FailureKind.WRONG_NAME,
        FailureKind.TLS_FAILED,
        FailureKind.NOT_HTTP,
        FailureKind.REDIRECT,
    }
)

TEXTS: Final[Mapping[FailureKind, str]] = MappingProxyType(
    {
        FailureKind.NO_SUCH_HOST: "the host's name cannot be resolved",
        FailureKind.REFUSED: "nothing listens at that address and port",
        FailureKind.UNREACHABLE: "there is no way to that address",
        FailureKind.TIMEOUT: "no whole answer in time",
        FailureKind.UNKNOWN_AUTHORITY: "the certificate's authority is not trusted",
        FailureKind.WRONG_NAME: "the certificate is for another name",
        FailureKind.CERTIFICATE_EXPIRED: "the certificate has expired, or a clock is wrong",
        FailureKind.CERTIFICATE_NOT_YET_VALID: (
            "the certificate is not valid yet, or a clock is wrong"
        ),
        FailureKind.CERTIFICATE_REFUSED: "the certificate cannot be used",
        FailureKind.TLS_FAILED: "there is no agreement on TLS: does the port speak it?",
        FailureKind.CLOSED_EARLY: "the connection was closed before a whole answer came",
        FailureKind.NOT_HTTP: "the answer is not HTTP",
        FailureKind.REDIRECT: "the answer is a redirect, and none is followed",
        FailureKind.STATUS: "the server refused",
        FailureKind.TOO_LARGE: "the answer is too large",
        FailureKind.BAD_ENCODING: "the answer's Content-Encoding cannot be used",
        FailureKind.BAD_ANSWER: "the answer is not what it should be",
        FailureKind.FAILED: "the request failed",
    }
)

#: X509_V_ERR_* of OpenSSL's x509_vfy.h.
_BY_VERIFY_CODE: Final = {
    **dict.fromkeys((2, 18, 19, 20, 21, 27), FailureKind.UNKNOWN_AUTHORITY),
    9: FailureKind.CERTIFICATE_NOT_YET_VALID,
    10: FailureKind.CERTIFICATE_EXPIRED,
    **dict.fromkeys((62, 63, 64), FailureKind.WRONG_NAME),
}
_BY_ERRNO: Final = {
    errno.ECONNREFUSED: FailureKind.REFUSED,
    **dict.fromkeys(
        (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL),
        FailureKind.UNREACHABLE,
    ),
    errno.ETIMEDOUT: FailureKind.TIMEOUT,
    **dict.fromkeys((errno.ECONNRESET, errno.EPIPE), FailureKind.CLOSED_EARLY),
}


class Explained(NamedTuple):
    """A failure.

    Attributes:
        kind: the word for it.
        detail: the message of the system or the library; safe to log.
    """

    kind: FailureKind
    detail: str


def explain(error: BaseException, *, has_head: bool = False) -> Explained:
    """Return the failure of a request.

    Args:
        error: raised by the client.
        has_head: status and headers had arrived when it was raised.
    """
    for cause in _causes(error):
        kind = _kind_of(cause, has_head=has_head)
        if kind is not None:
            return Explained(kind, excerpt(str(cause).encode("utf-8", "replace")))
    return Explained(FailureKind.FAILED, type(error).__name__)


def _kind_of(error: BaseException, *, has_head: bool) -> FailureKind | None:
    """Return the kind of one exception; None if another of the chain is more
    precise.
    """
    match error:
        case ssl.SSLCertVerificationError():
            default = FailureKind.CERTIFICATE_REFUSED
            return _BY_VERIFY_CODE.get(error.verify_code, default)
        case ssl.SSLEOFError():
            return FailureKind.CLOSED_EARLY
        case ssl.SSLError():
            return FailureKind.TLS_FAILED
        case socket.gaierror():
            return FailureKind.NO_SUCH_HOST
        case h11.RemoteProtocolError(error_status_hint=431):
            return FailureKind.TOO_LARGE
        case h11.RemoteProtocolError() if not has_head:
            return FailureKind.NOT_HTTP
        case TimeoutError() | httpx.TimeoutException():
            return FailureKind.TIMEOUT
        case OSError():
            # anyio's "All connection attempts failed" has no number; its causes have.
            return _BY_ERRNO.get(error.errno or 0)
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions that led to this one, oldest first.

    The client library's own come last, because they are the least precise.
    """
    chain: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        cause = waiting.pop(0)
        if cause is None or cause in chain:
            continue
        chain.append(cause)
        # httpcore hides the causes of its errors from tracebacks (`from None`).
        waiting.append(cause.__cause__ or cause.__context__)
        if isinstance(cause, BaseExceptionGroup):
            waiting += cause.exceptions
    yield from reversed(chain)
    # Only the client library noticed: the peer closed the connection silently.
    if isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError):
        yield ConnectionResetError(errno.ECONNRESET, str(error))


def shown_url(url: str) -> str:
    """Return a URL without user information, query and fragment."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        return excerpt(
            parts._replace(netloc=host, query="", fragment="").geturl().encode()
        )
    except ValueError:
        return "(a URL that cannot be read)"


def excerpt(body: bytes, secrets: Iterable[str] = ()) -> str:
    """Return the first bytes of a server's answer, safe to log (R35).

    Args:
        body: at least `EXCERPT_READ` bytes of it, if there are as many.
        secrets: texts that must not be shown; text that looks like a token is removed
            as well.
    """
    text = body.decode("utf-8", "backslashreplace")
    for secret in secrets:
        text = text.replace(secret, _HIDDEN)
    text = _TOKEN.sub(_HIDDEN, text)
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )
    return shown.encode()[:EXCERPT_BYTES].decode("utf-8", "ignore")
