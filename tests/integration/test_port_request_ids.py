"""What the wire refuses has the id of its request, where its head was read."""

from __future__ import annotations

from tests.support.limited_port import GET, SOON, connected, read_all, served

POST = b"POST /x HTTP/1.1\r\nHost: a\r\nX-Request-ID: r-1\r\n"


def lines_of(answer: bytes) -> list[bytes]:
    return answer.partition(b"\r\n\r\n")[0].split(b"\r\n")


def test_a_refused_body_has_the_id() -> None:
    sent = POST + b"Content-Length: 100\r\n\r\n"
    with served(body_bytes=10) as (port, _), connected(port, sent) as way:
        lines = lines_of(read_all(way))
    assert lines[0] == b"HTTP/1.1 413 Content Too Large"
    assert lines[-1] == b"X-Request-ID: r-1"


def test_a_body_that_does_not_come_has_the_id() -> None:
    sent = POST + b"Content-Length: 5\r\n\r\n"
    with served(body_time=SOON) as (port, _), connected(port, sent) as way:
        lines = lines_of(read_all(way))
    assert lines[0] == b"HTTP/1.1 408 Request Timeout"
    assert b"X-Request-ID: r-1" in lines


def test_a_malformed_id_is_not_repeated() -> None:
    sent = POST.replace(b"r-1", b"r 1") + b"Content-Length: 100\r\n\r\n"
    with served(body_bytes=10) as (port, _), connected(port, sent) as way:
        assert b"X-Request-ID" not in read_all(way)


def test_the_next_request_is_not_taken_for_the_last_one() -> None:
    """Its head never came, so its id is not known."""
    first = GET.replace(b"\r\n\r\n", b"\r\nX-Request-ID: r-1\r\n\r\n")
    with served(head_time=SOON) as (port, _), connected(port, first) as way:
        way.recv(1_000)
        way.sendall(b"GET /x")
        lines = lines_of(read_all(way))
        assert lines[0] == b"HTTP/1.1 408 Request Timeout"
        assert b"X-Request-ID" not in b"".join(lines)
        with connected(port, first) as other:
            other.recv(1_000)
            other.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\n b: c\r\n\r\n")
            assert b"X-Request-ID" not in read_all(other)
