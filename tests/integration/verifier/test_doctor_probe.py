"""`doctor` before a gateway that is broken or hostile."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.raw_server import Answer, RawServer
from verifier.commands.main import main

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1MSJ9.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"


def repeat(first: bytes, more: bytes) -> Answer:
    """Return an answer that never ends; a byte now and then restarts a time-out."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(first)
        while True:
            connection.sendall(more)
            time.sleep(0.05)

    return answer


def say(said: bytes) -> Answer:
    """Return an answer after which the connection ends."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(said)
        connection.shutdown(socket.SHUT_RDWR)

    return answer


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    servers: list[RawServer] = []

    def start(answer: Answer) -> str:
        servers.append(RawServer(answer, None, "127.0.0.1"))
        return servers[-1].url

    yield start
    for server in servers:
        server.close()


ENDLESS = {
    "head": repeat(b"", b"H"),
    "headers": repeat(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "interim answers": repeat(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": repeat(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"a"),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_an_answer_that_does_not_end_is_given_up(
    serve: Callable[[Answer], str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = serve(ENDLESS[what])
    assert main(["doctor", "--gateway", url, "--timeout", "0.3"]) == 2
    assert "no whole answer in 0.3 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    "said",
    [f"\x1b[2J {TOKEN}\r\n\r\n", f"HTTP/1.1 \x1b[2J{TOKEN} OK\r\n\r\n"],
    ids=["no HTTP", "no status"],
)
def test_what_is_no_http_is_not_repeated(
    serve: Callable[[Answer], str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """R35: it may be the token, or write to the terminal."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    url = serve(say(said.encode()))
    for options in ([], ["--json"]):
        command = ["doctor", "--gateway", url, "--token-file", str(file), *options]
        assert main(command) == 2
        written = capsys.readouterr()
        shown = written.out or written.err
        assert "no HTTP answer" in (json.loads(shown)["error"] if options else shown)
        assert TOKEN not in shown
        assert "\x1b" not in shown
