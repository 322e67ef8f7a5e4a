"""The words for failures, and the part of a server's own text that is shown."""

from __future__ import annotations

import errno
import itertools
import logging
import socket
import ssl

import httpx
import pytest

from shared.outgoing.failure_log import EVERY, MAX_LINES, FailureLog
from shared.outgoing.failures import (
    EXCERPT_BYTES,
    EXCERPT_READ,
    TEXTS,
    FailureKind,
    excerpt,
    explain,
    shown_url,
)
from tests.support.clock import FakeClock


def caused(*causes: BaseException) -> BaseException:
    """Return the first, caused by the second, and so on; the last comes first in
    time.
    """
    for effect, cause in itertools.pairwise(causes):
        effect.__cause__ = cause
    return causes[0]


def verify_error(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code = code
    return error


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "refused"),
        (OSError(errno.EHOSTUNREACH, "no route"), "unreachable"),
        (OSError(errno.ENETUNREACH, "no network"), "unreachable"),
        (OSError(errno.EADDRNOTAVAIL, "no IPv6 here"), "unreachable"),
        (OSError(errno.ETIMEDOUT, "timed out"), "timeout"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "closed_early"),
        (BrokenPipeError(errno.EPIPE, "broken"), "closed_early"),
        (socket.gaierror(socket.EAI_NONAME, "not known"), "no_such_host"),
        (socket.gaierror(socket.EAI_AGAIN, "temporary"), "no_such_host"),
        (TimeoutError(), "timeout"),
        (verify_error(10), "certificate_expired"),
        (verify_error(9), "certificate_not_yet_valid"),
        (verify_error(18), "unknown_authority"),
        (verify_error(19), "unknown_authority"),
        (verify_error(20), "unknown_authority"),
        (verify_error(62), "wrong_name"),
        (verify_error(64), "wrong_name"),
        (verify_error(26), "certificate_refused"),
        (ssl.SSLEOFError(8, "EOF"), "closed_early"),
        (ssl.SSLError(1, "wrong version number"), "tls_failed"),
    ],
    ids=repr,
)
def test_the_first_cause_describes_the_failure(cause: OSError, kind: str) -> None:
    error = httpx.ConnectError("All connection attempts failed")
    assert explain(caused(error, OSError("attempts failed"), cause)).kind == kind
    group = ExceptionGroup("several addresses", [cause, OSError("and another")])
    assert explain(caused(error, OSError("attempts failed"), group)).kind == kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ReadTimeout(""), "timeout"),
        (httpx.PoolTimeout(""), "timeout"),
        (httpx.ReadError(""), "closed_early"),
        (httpx.WriteError(""), "closed_early"),
        (httpx.RemoteProtocolError("Server disconnected"), "closed_early"),
        (httpx.InvalidURL("a fault"), "failed"),
        (httpx.LocalProtocolError("a fault"), "failed"),
    ],
    ids=repr,
)
def test_the_clients_own_text_counts_without_a_cause(
    error: Exception, kind: str
) -> None:
    assert explain(error).kind == kind


def test_causes_that_go_round_in_a_circle_end() -> None:
    one, two = OSError("one"), OSError("two")
    one.__context__, two.__context__ = two, one
    assert explain(one).kind == "failed"


def test_every_kind_has_a_text() -> None:
    assert set(TEXTS) == set(FailureKind)
    assert all(text.isprintable() for text in TEXTS.values())


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a.test/revocations?epoch=1#x", "https://a.test/revocations"),
        ("https://user:pass@a.test:8443/x", "https://a.test:8443/x"),
        ("http://[::1]:8000/x", "http://[::1]:8000/x"),
        ("https://a.test/\r\nX: y", "https://a.test/X: y"),
        ("https://[broken", "(a URL that cannot be read)"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_credentials(url: str, shown: str) -> None:
    assert shown_url(url) == shown


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"plain text", "plain text"),
        ("Größe 漢字".encode(), "Größe 漢字"),
        (b"a\r\nb\tc\x00\x1b[0m\x7f", r"a\r\nb\tc\x00\x1b[0m\x7f"),
        ("a\u202eb\u2028c\ufeffd".encode(), r"a\u202eb\u2028c\ufeffd"),
        (b"\xff\xfe", r"\xff\xfe"),
        (b"token=" + b"A1b2-" * 8 + b"==, next", "[...], next"),
        (b"x" * 31, "x" * 31),
        (b"x" * 32, "[...]"),
        (b"", ""),
    ],
)
def test_an_excerpt_is_one_line_without_tokens(body: bytes, shown: str) -> None:
    assert excerpt(body) == shown


@pytest.mark.parametrize("text", ["word ", "\x00 ", "ü ", "漢 "])
def test_an_excerpt_is_bounded_in_bytes(text: str) -> None:
    shown = excerpt((text * EXCERPT_READ).encode()[:EXCERPT_READ])
    assert EXCERPT_BYTES - 4 < len(shown.encode()) <= EXCERPT_BYTES


def test_a_secret_is_not_shown_in_any_place() -> None:
    """Also where only its end would have been cut off by the length."""
    secret = "short secret!"
    for at in range(EXCERPT_BYTES + 20):
        shown = excerpt(b". " * (at // 2) + secret.encode() * 2, [secret])
        assert secret[:8] not in shown


# --- lines in the log
# ------------------------------------------------------------------


def log_of(clock: FakeClock) -> FailureLog:
    logger = logging.getLogger("test.failures")
    return FailureLog(logger, "sync.failed", clock.monotonic, source="feed")


def test_the_same_failure_is_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    clock = FakeClock()
    log = log_of(clock)
    for _ in range(121):
        log.failed(("refused", None), kind="refused")
        clock.advance(1)
    assert [r.fields["unlogged"] for r in caplog.records] == [0, EVERY - 1, EVERY - 1]
    assert {(r.message, r.levelname) for r in caplog.records} == {
        ("sync.failed", "WARNING")
    }
    assert caplog.records[0].fields["source"] == "feed"


def test_another_failure_is_logged_at_once_but_not_without_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    log = log_of(clock)
    for _ in range(3):
        for status in range(400, 600):
            log.failed(("status", status), status=status)
    assert len(caplog.records) == MAX_LINES
    assert caplog.records[1].fields["status"] == 401
    clock.advance(EVERY)
    log.failed(("status", 500))
    assert caplog.records[-1].fields["unlogged"] == 600 - MAX_LINES


def test_that_it_works_again_is_logged_once_for_a_logged_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A source that fails every other time fills no log either."""
    caplog.set_level("INFO")
    clock = FakeClock()
    log = log_of(clock)
    log.worked()
    for _ in range(50):
        log.failed(("timeout", None))
        log.worked()
        log.worked()
    assert caplog.messages == ["sync.failed", "sync.failed_no_more"]
    clock.advance(EVERY)
    log.failed(("timeout", None))
    log.worked()
    assert len(caplog.messages) == 4
