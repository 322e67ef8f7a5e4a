"""A TCP relay that can be a bad line: `python -m tests.support.tcp_relay --help`.

For a cut line, stop it (SIGSTOP): connections stay, new ones are taken by the kernel,
and no byte passes. A packet that is lost shows above TCP as a delay, for it is sent
again: so does `--loss`, for the share of pieces given, 200 ms and doubling as Linux
begins.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
from collections.abc import Callable

_RESENT_AFTER = 0.2
_PIECE = 1_400


def main() -> None:
    """Relay until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--to", required=True, metavar="HOST:PORT")
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--loss", type=float, default=0.0, metavar="SHARE")
    options = parser.parse_args()

    def delay() -> float:
        seconds: float = options.delay
        again = _RESENT_AFTER
        while random.random() < options.loss:
            seconds += again
            again *= 2
        return seconds

    asyncio.run(serve(_split(options.listen), _split(options.to), delay))


async def serve(
    listen: tuple[str, int], to: tuple[str, int], delay: Callable[[], float]
) -> None:
    """Relay for ever; `delay` gives the seconds each piece is held."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(*to)
            ways = [
                asyncio.create_task(_pass_on(reader, far_writer, delay)),
                asyncio.create_task(_pass_on(far_reader, writer, delay)),
            ]
            # A half that ends takes the other along: half-closing is not used here.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            far_writer.close()
        writer.close()

    server = await asyncio.start_server(relay, *listen)
    await server.serve_forever()


async def _pass_on(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    delay: Callable[[], float],
) -> None:
    loop = asyncio.get_running_loop()
    held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def write() -> None:
        while True:
            due, piece = await held.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not piece:
                return
            writer.write(piece)
            await writer.drain()

    writing = asyncio.create_task(write())
    try:
        due = 0.0
        piece = b"-"
        while piece:
            piece = await reader.read(_PIECE)
            # In order: bytes after a lost packet wait for it.
            due = max(due, loop.time() + delay())
            held.put_nowait((due, piece))
        await writing
    finally:
        writing.cancel()


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


if __name__ == "__main__":
    main()
