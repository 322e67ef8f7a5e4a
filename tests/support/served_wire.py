"""Check requests as raw bytes, and a served verifier that answers them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.support.gatehouse_verifier import SimulatedVerifier
from tests.support.verifier_server import VerifierServer

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@dataclass
class Wire:
    """A served verifier, and a token it lets pass."""

    server: VerifierServer
    verifier: SimulatedVerifier
    token: bytes

    async def statuses(self, *chunks: bytes, answers: int | None = None) -> list[int]:
        """Send the chunks and return the statuses of all answers."""
        return statuses_of(await self.server.talk(*chunks, answers=answers))


def statuses_of(answers: bytes) -> list[int]:
    return [int(status) for status in _STATUS.findall(answers)]


def a_check(
    token: bytes | None, *lines: bytes, start: bytes = b"GET /verify/nginx"
) -> bytes:
    """Return a check request: request line, Host, token, further header lines."""
    headers = [b"Host: verifier", *lines]
    if token is not None:
        headers.append(b"Authorization: Bearer " + token)
    return b"\r\n".join([start + b" HTTP/1.1", *headers, b"", b""])


CLOSE = b"Connection: close"
