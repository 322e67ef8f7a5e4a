"""Connections that bring no request: `python -m tests.support.slow_clients PORT ...`.

Silent ones send nothing; dripping ones begin a request and add one byte of header a
second. A connection that the server closes is opened again, so that their number
stays; the rate is an argument. Ten times a second a line of JSON is printed:
`{"silent","dripping","closed","longest","refused"}`: open now of each kind, closed by
the server so far, seconds the longest of those was open, connections that failed.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import itertools
import json
import os
import selectors
import socket
import time
from dataclasses import dataclass

#: Seconds between two looks. The drip of a second is spread over its looks, and so are
#: new connections: strangers do not come in step.
_TICK = 0.002
_TICKS = 500
#: Seconds of coming connections that a late look makes up at most.
_MADE_UP = 0.01
_OPENING = b"GET /verify/nginx HTTP/1.1\r\nHost: a\r\nX-Slow: "


@dataclass(slots=True)
class SlowClient:
    """One connection; `slot` is the tick of a second at which it drips."""

    connection: socket.socket
    is_dripping: bool
    opened: float
    slot: int


class Crowd:
    """All slow connections to one port of loopback.

    Args:
        port: where they go.
        silent, dripping: how many of each kind.
        coming: how many of each kind come in a second at most.
    """

    def __init__(self, port: int, silent: int, dripping: int, coming: float) -> None:
        self._port = port
        self._coming = coming
        self._may_come = 0.0
        self._looked = time.monotonic()
        self._wanted = {False: silent, True: dripping}
        self._selector = selectors.DefaultSelector()
        self._slots: list[set[int]] = [set() for _ in range(_TICKS)]
        self._clients: dict[int, SlowClient] = {}
        self.open = {False: 0, True: 0}
        self.closed = 0
        self.longest = 0.0
        self.late = 0.0
        self.refused = 0

    def tick(self, number: int) -> None:
        """Open missing connections, drip the bytes that are due, record closed ones."""
        slot = number % _TICKS
        for _ in range(self._places()):
            for is_dripping, wanted in self._wanted.items():
                if self.open[is_dripping] < wanted:
                    self._begin(slot, is_dripping=is_dripping)
        for fileno in list(self._slots[slot]):
            client = self._clients[fileno]
            try:
                client.connection.send(b"a")
            except BlockingIOError:
                continue
            except OSError:
                self._end(client)

    def _places(self) -> int:
        """Return how many of each kind may come now; little of a late look is made
        up.
        """
        now = time.monotonic()
        self.late = max(self.late, now - self._looked - _TICK)
        past = min(now - self._looked, _MADE_UP)
        self._looked = now
        places, self._may_come = divmod(self._may_come + past * self._coming, 1.0)
        return int(places)

    def watch(self, seconds: float) -> None:
        """Note which connections the server closes in that time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                client: SlowClient = key.data
                with contextlib.suppress(BlockingIOError):
                    if not self._receive(client):
                        self._end(client)

    def _receive(self, client: SlowClient) -> bytes:
        try:
            return client.connection.recv(4_096)
        except BlockingIOError:
            raise
        except OSError:
            return b""

    def _begin(self, slot: int, *, is_dripping: bool) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        failed = connection.connect_ex(("127.0.0.1", self._port))
        if failed not in (0, errno.EINPROGRESS):
            connection.close()
            self.refused += 1
            return
        client = SlowClient(connection, is_dripping, time.monotonic(), slot)
        if is_dripping:
            with contextlib.suppress(BlockingIOError):
                connection.send(_OPENING)
            self._slots[slot].add(connection.fileno())
        self._clients[connection.fileno()] = client
        self._selector.register(connection, selectors.EVENT_READ, client)
        self.open[is_dripping] += 1

    def _end(self, client: SlowClient) -> None:
        fileno = client.connection.fileno()
        self._selector.unregister(client.connection)
        self._slots[client.slot].discard(fileno)
        del self._clients[fileno]
        client.connection.close()
        self.open[client.is_dripping] -= 1
        self.closed += 1
        self.longest = max(self.longest, time.monotonic() - client.opened)

    def report(self) -> str:
        """Return how it goes, as a line of JSON."""
        return json.dumps(
            {
                "silent": self.open[False],
                "dripping": self.open[True],
                "closed": self.closed,
                "longest": round(self.longest, 3),
                "late": round(self.late, 3),
                "refused": self.refused,
            }
        )


def main() -> None:
    """Be slow for the time on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--silent", type=int, required=True)
    parser.add_argument("--dripping", type=int, required=True)
    parser.add_argument("--coming", type=int, required=True, help="a second at most")
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    # The crowd's own work is on this machine by need: the measurement goes first.
    os.nice(5)
    crowd = Crowd(
        options.port, options.silent, options.dripping, coming=options.coming / 2
    )
    end = time.monotonic() + options.seconds
    for number in itertools.count():
        if time.monotonic() > end:
            return
        crowd.tick(number)
        crowd.watch(_TICK)
        if number % 50 == 49:
            print(crowd.report(), flush=True)


if __name__ == "__main__":
    main()
