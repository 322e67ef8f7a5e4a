"""A real HAProxy that checks tokens by itself, and what Gatehouse writes into it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from deploy.gateway_programs import registry
from deploy.gateway_programs.program import CONFIGS
from shared.feed import EntryKind, FeedEntry
from shared.jose.verification_keys import VerificationKey
from tests.support.plain_app import Connection, plain_app
from tests.support.processes import (
    ProcessFactory,
    free_port,
    is_alive,
    is_listening,
    wait_until,
)
from tests.support.tokens import ISSUER, TestKey, good_claims, make_token
from verifier.check.trust import key_set, keys_by_id
from verifier.native.content import ContentSource, KeepingTrust
from verifier.native.haproxy.gateways import HaproxyGateways
from verifier.native.in_force import InForce
from verifier.native.terms import NativeTerms

#: Seconds without news after which HAProxy closes.
STALENESS = 4.0
#: Seconds between two pieces of news.
_BEAT = 0.25
#: The claims in the order in which our issuer writes them.
_ORDER = [
    "iss",
    "sub",
    "aud",
    "exp",
    "iat",
    "jti",
    "client_id",
    "scope",
    "sid",
    "gen",
    "roles",
    "auth_time",
    "username",
    "amr",
    "acr",
    "status",
]
_NEVER = 2**31
T = TypeVar("T")


def in_issuers_order(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Return the claims as our issuer orders them, others last."""
    places = {name: place for place, name in enumerate(_ORDER)}
    return dict(sorted(claims.items(), key=lambda item: places.get(item[0], 99)))


def our_token(key: TestKey | None = None, **changes: Any) -> str:
    """Return a token as our issuer makes it; a change to None removes a claim."""
    claims = in_issuers_order(good_claims(int(time.time()), **changes))
    return make_token(claims, key=key).decode()


class Writing:
    """The process that writes, as a thread of this one.

    Args:
        terms: of the policies.
        socket: of HAProxy's master.
        directory: that HAProxy reads.
        keys: of the issuer.
        entries: revoked so far.
    """

    def __init__(
        self,
        terms: Mapping[str, NativeTerms],
        socket: Path,
        directory: Path,
        keys: Iterable[VerificationKey],
        entries: list[FeedEntry],
    ) -> None:
        self._trust = KeepingTrust(ISSUER)
        # Nothing of a process before this one is open any more.
        self.in_force = InForce(time.monotonic, 0.0)
        source = ContentSource(
            self._trust, self.in_force, dict, time.monotonic, time.time
        )
        self.gateways = HaproxyGateways(
            terms, source, self.in_force, str(socket), directory
        )
        self._entries = entries
        self._trust.enforce(entries)
        self.trust_keys(keys)
        self._renew()
        self.in_force.reached("e", len(entries))
        self.gateways.prepare()
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def trust_keys(self, keys: Iterable[VerificationKey]) -> None:
        self._trust.trust_keys(ISSUER, keys_by_id(keys), 1e9)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End without any last word."""

        async def end() -> None:
            for task in self._tasks:
                task.cancel()

        assert self._thread is not None
        self.call(end())
        self._thread.join()

    def _run(self) -> None:
        async def whole() -> None:
            self._tasks = [
                asyncio.create_task(self.gateways.run()),
                asyncio.create_task(self._beat()),
            ]
            await asyncio.wait(self._tasks)

        self._loop.run_until_complete(whole())
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()

    async def _beat(self) -> None:
        while True:
            self._renew()
            await asyncio.sleep(_BEAT)

    def _renew(self) -> None:
        self._trust.renew(time.monotonic() + STALENESS)

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return what a coroutine returns in the thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def revoke(self, kind: EntryKind, key: str, generation: int = 0) -> int:
        """Put an entry into the feed; return its position."""

        async def act() -> int:
            entry = FeedEntry(len(self._entries) + 1, kind, key, generation, _NEVER)
            self._entries.append(entry)
            self._trust.enforce([entry])
            self.in_force.reached("e", len(self._entries))
            return len(self._entries)

        return self.call(act())

    def is_confirmed(self, position: int, seconds: float = 20.0) -> bool:
        """Return whether the position is in force everywhere within that time."""

        async def act() -> bool:
            await self.in_force.wait("e", position, seconds)
            return self.in_force.position("e") >= position

        return self.call(act())

    def confirm(self, kind: EntryKind, key: str, generation: int = 0) -> None:
        """Revoke, and return when that is in force everywhere."""
        assert self.is_confirmed(self.revoke(kind, key, generation))


class NativeHaproxy:
    """HAProxy on the config of deploy/gateways/haproxy-native, before an application.

    Args:
        folder: for everything; a short path.
        factory: starts HAProxy.
        terms: of the policies; `default` has the shipped frontend.
        keys: of the issuer.

    Attributes:
        ports: of the frontends, by policy.
        writing: writes into it.
    """

    def __init__(
        self,
        folder: Path,
        factory: ProcessFactory,
        terms: Mapping[str, NativeTerms],
        keys: Iterable[TestKey],
    ) -> None:
        self._folder = folder
        self._factory = factory
        self._terms = terms
        self._keys = list(keys)
        self.ports = {name: free_port() for name in terms}
        self._app = free_port()
        self.entries: list[FeedEntry] = []
        self.keys = [_verification_key(key) for key in self._keys]
        self.writing = self._new_writing()

    @property
    def socket(self) -> Path:
        return self._folder / "master.sock"

    def _new_writing(self) -> Writing:
        return Writing(
            self._terms, self.socket, self._folder / "d", self.keys, self.entries
        )

    def start(self) -> None:
        """Start HAProxy, then what writes into it; return when a token passes."""
        config = (CONFIGS / "haproxy-native/haproxy.cfg").read_text()
        for written, wanted in (
            ("127.0.0.1:8080", f"127.0.0.1:{self.ports['default']}"),
            ("127.0.0.1:8081", f"127.0.0.1:{self._app}"),
        ):
            assert written in config
            config = config.replace(f"    bind {written}\n", f"    bind {wanted}\n")
            config = config.replace(f"server app {written} ", f"server app {wanted} ")
        for name, port in self.ports.items():
            if name != "default":
                config += _FRONTEND.format(name=name, port=port)
        (self._folder / "haproxy.cfg").write_text(config)
        self.start_haproxy()
        self.writing.start()
        self.wait_until_open()

    def start_haproxy(self) -> None:
        """Start HAProxy alone."""
        binary = registry.find_binary("haproxy")
        assert binary is not None
        self._factory.start(
            "native-haproxy",
            [
                *(binary, "-W", "-S", f"{self.socket},mode,600"),
                *("-f", self._folder / "d/gatehouse.cfg"),
                *("-f", self._folder / "haproxy.cfg"),
            ],
            ready=lambda: is_listening(self.ports["default"]),
        )

    def kill(self) -> None:
        """Kill the master, and return when its worker has ended, too."""
        worker = self.worker()
        found = re.search(r"^([0-9]+)\s+master", self.master("show proc"), re.M)
        assert found is not None
        os.kill(int(found[1]), signal.SIGKILL)
        wait_until(lambda: not is_alive(worker), what="its worker has ended")

    def restart_writing(self) -> None:
        """Start what writes anew, with all revocations so far."""
        self.writing = self._new_writing()
        self.writing.start()

    def wait_until_open(self, token: str = "", policy: str = "default") -> None:
        token = token or our_token()
        wait_until(lambda: self.ask(token, policy) == 200, what="a token passes")

    def ask(self, token: str, policy: str = "default") -> int:
        """Return the status of a request over a connection of its own."""
        return self.ask_raw(f"Authorization: Bearer {token}".encode(), policy)

    def ask_raw(self, lines: bytes, policy: str = "default") -> int:
        """Return the status of a request with these bytes as header lines."""
        with socket.create_connection(("127.0.0.1", self.ports[policy]), 20) as stream:
            stream.sendall(
                b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                + lines
                + b"\r\n\r\n"
            )
            answer = b""
            while b"\r\n" not in answer and (data := stream.recv(4096)):
                answer += data
        return int(answer.split(b" ")[1]) if answer else 0

    def ask_many(self, tokens: Iterable[bytes], policy: str) -> list[int]:
        """Return the status of each: many over one connection, where HTTP allows it."""
        statuses: list[int] = []
        kept: list[str] = []

        def ask_kept() -> None:
            connection = KeptConnection(self.ports[policy])
            for token in kept:
                connection.send(token)
            statuses.extend(connection.status() for _ in kept)
            connection.close()
            kept.clear()

        for token in tokens:
            text = token.decode("latin-1")
            if len(text) < 16_000 and text.isascii() and text.isprintable():
                kept.append(text)
            else:
                ask_kept()
                # A line end would begin another header.
                line = token.replace(b"\r", b"%").replace(b"\n", b"%")
                statuses.append(self.ask_raw(b"Authorization: Bearer " + line, policy))
            if len(kept) >= 40:
                ask_kept()
        ask_kept()
        return statuses

    def ask_at_once(self, token: str, count: int) -> list[int]:
        """Return the statuses on as many new connections, all open at one time."""
        with ExitStack() as stack:
            connections = []
            for _ in range(count):
                connections.append(KeptConnection(self.ports["default"]))
                stack.callback(connections[-1].close)
            for connection in connections:
                connection.send(token)
            return [connection.status() for connection in connections]

    @contextmanager
    def load(self, token: str) -> Iterator[None]:
        """Send requests all the time in between, over a few connections."""
        is_over = threading.Event()

        def ask() -> None:
            while not is_over.is_set():
                with suppress(OSError):
                    self.ask_at_once(token, 4)

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def master(self, command: str) -> str:
        """Return the master's answer to a command."""
        with self._connect_to_master() as stream:
            stream.sendall(b"prompt\n" + command.encode() + b"\n")
            answer = b""
            while answer.count(b"master> ") < 2 and (data := stream.recv(65536)):
                answer += data
        return answer.decode()

    def _connect_to_master(self) -> socket.socket:
        connected: list[socket.socket] = []

        def connect() -> bool:
            stream = socket.socket(socket.AF_UNIX)
            stream.settimeout(20)
            try:
                stream.connect(str(self.socket))
            except OSError:
                stream.close()
                return False
            connected.append(stream)
            return True

        # Workers may be open before the master is: it executes itself anew once they
        # run (HAProxy's mworker_reexec_waitmode).
        wait_until(connect, what="the master")
        return connected[0]

    def worker(self) -> int:
        """Return the process id of the current worker."""
        found: list[str] = []

        def has_answer() -> bool:
            current, _, _ = self.master("show proc").partition("# old workers")
            found[:] = re.findall(r"^([0-9]+)\s+worker", current, re.M)
            return bool(found)

        wait_until(has_answer, what="the master names its worker")
        return int(found[0])

    def reload(self) -> None:
        """Reload, and return when the new worker is open."""
        before = self.worker()
        self.master("reload")

        wait_until(lambda: self.worker() != before, what="another worker")
        self.wait_until_open()

    @contextmanager
    def stopped_worker(self) -> Iterator[None]:
        """Stop the current worker in between, as a debugger does."""
        pid = self.worker()
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: _is_stopped(pid), what="stopped")
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @contextmanager
    def application(self) -> Iterator[None]:
        """Run the application, which answers with the header lines that it got."""
        with plain_app(self._app, _echo):
            yield


class KeptConnection:
    """A connection to HAProxy that stays open; they spread over its threads."""

    def __init__(self, port: int) -> None:
        self._stream = socket.create_connection(("127.0.0.1", port), 20)
        self._stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""

    def send(self, token: str) -> None:
        text = f"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"
        self._stream.sendall(text.encode())

    def status(self) -> int:
        """Return the status of one answer; 0 when there is none any more."""
        try:
            while b"\r\n\r\n" not in self._rest:
                self._read()
            head, _, self._rest = self._rest.partition(b"\r\n\r\n")
            found = re.search(rb"content-length: ([0-9]+)", head, re.I)
            length = int(found[1]) if found else 0
            while len(self._rest) < length:
                self._read()
        except ConnectionError:
            return 0
        self._rest = self._rest[length:]
        return int(head.split(b" ")[1])

    def _read(self) -> None:
        data = self._stream.recv(65536)
        if not data:
            raise ConnectionError
        self._rest += data

    def close(self) -> None:
        self._stream.close()


_FRONTEND = """
frontend {name} from gatehouse-{name}
    bind 127.0.0.1:{port}
    timeout client 20s
    timeout http-request 20s
    default_backend gatehouse_app
"""


def _echo(connection: Connection) -> None:
    head = connection.head
    while head:
        lines = head.decode("latin-1").splitlines()[1:]
        pairs = [
            line.split(": ", 1) if ": " in line else [line[:-1], ""] for line in lines
        ]
        body = json.dumps(pairs).encode()
        connection.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        head = connection.read_head()


def _is_stopped(pid: int) -> bool:
    """Return whether all threads of a process are stopped (proc(5))."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


def _verification_key(key: TestKey) -> VerificationKey:
    (found,) = key_set([key.jwk]).keys.values()
    return found
