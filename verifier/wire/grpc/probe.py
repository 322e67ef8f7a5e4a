"""Asks this worker's own gRPC server every second whether it answers.

grpcio has threads and a loop of its own, so its server can stop answering while the
worker's event loop runs. Readiness reports that.

With several workers the port's address may lead to another one. So the server listens
for its probe on a second address: an abstract unix socket, whose peers get no check
answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from typing import Any, Final

PROBE_SERVICE: Final = "gatehouse.Probe"
PROBE_METHOD: Final = "Answer"
#: Seconds between two probes, and until one counts as unanswered.
_PERIOD: Final = 1.0
_TIMEOUT: Final = 2.0
#: Seconds without an answer after which the server counts as gone: a busy machine
#: delays one by less.
PATIENCE: Final = 5.0


def probe_address(pid: int) -> str:
    """Return an address that no other process has; it needs no file (unix(7))."""
    return f"unix-abstract:gatehouse-{pid}-{secrets.token_hex(8)}"


class Probe:
    """Probes one server.

    Args:
        address: where the server listens, in grpcio's form.

    Attributes:
        address: the same.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        #: Not ready before the first answer: then the port is open.
        self._answered_at = float("-inf")
        self._has_answered = asyncio.Event()
        self._channel: Any = None

    @property
    def is_answered(self) -> bool:
        """Whether the server has answered lately."""
        return time.monotonic() - self._answered_at < PATIENCE

    def start(self) -> asyncio.Task[None]:
        """Return the task that probes until it is cancelled."""
        return asyncio.create_task(self._run())

    async def _run(self) -> None:
        import grpc.aio

        options = [
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_reconnect_backoff_ms", int(_PERIOD * 1_000)),
        ]
        self._channel = grpc.aio.insecure_channel(self.address, options=options)
        ask = self._channel.unary_unary(f"/{PROBE_SERVICE}/{PROBE_METHOD}")
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await ask(b"", timeout=_TIMEOUT)
                self._answered_at = time.monotonic()
                self._has_answered.set()
            await asyncio.sleep(_PERIOD)

    async def wait(self) -> None:
        """Return at the first answer, or when it has not come in time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._has_answered.wait(), PATIENCE)

    async def close(self) -> None:
        """Close the connection."""
        if self._channel is not None:
            await self._channel.close()
