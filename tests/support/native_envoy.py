"""A real Envoy on the shipped configuration, which our writer in this process fills.

The writer and a small application run in an event loop of their own thread, so that
tests are plain functions. Time is the machine's: Envoy reads no other clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import httpx

from deploy.demo.addresses import HOST, Addresses
from deploy.gateway_programs.program import (
    CONFIGS,
    find_in_environment,
    put_addresses,
    put_texts,
)
from shared.feed import EntryKind, FeedEntry
from tests.support.installed_gateways import require
from tests.support.processes import Process, ProcessFactory, free_port, wait_until
from tests.support.tokens import (
    AUDIENCE,
    ISSUER,
    TestKey,
    good_claims,
    make_token,
    signing_key,
)
from verifier.check.policy import Policy, TokenPolicy
from verifier.check.rules.requirements import Requirements
from verifier.check.trust import KeySet, key_set
from verifier.native.content import ContentSource, KeepingTrust
from verifier.native.envoy.admin import EnvoyAdmin, FilterState
from verifier.native.envoy.names import RECENT
from verifier.native.envoy.xds import XdsServer
from verifier.native.in_force import InForce
from verifier.native.terms import NativeTerms, native_terms
from verifier.sync.clock import boottime

T = TypeVar("T")
Headers = Iterable[tuple[str, str]]

EPOCH: Final = "epoch"
#: Worker threads of Envoy.
WORKERS: Final = 4
#: The policy of the second listener, and the scope that it asks for.
SCOPED: Final = "orders"
SCOPE: Final = "orders:write"
#: Seconds that a revocation is kept, and that keys count, in a test that is not about
#: it.
LONG: Final = 900
#: Seconds that revocations count after the last news, as in production by default.
FRESH: Final = 30
_FORM: Final = f"address: {HOST}, port_value: {{}}"
_FOLDER: Final = "/run/gatehouse/"
_SECONDS: Final = 30.0


class Answer(NamedTuple):
    """What Envoy answered.

    Attributes:
        status: of the answer.
        headers: of the answer, names in lower case.
        reached: the header lines that the application got; empty when it got none.
    """

    status: int
    headers: Mapping[str, str]
    reached: Sequence[tuple[str, str]]

    def values(self, name: str) -> list[str]:
        """Return the values that the application got in this header."""
        return [value for key, value in self.reached if key == name]


class BegunRequest(NamedTuple):
    """A request of which a part was sent."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    rest: bytes


class NativeEnvoy:
    """Envoy, our writer, and an application that says which headers it got.

    Args:
        folder: for the configuration, sockets and logs; a short path.

    Attributes:
        trust: in the issuer; change it with `on_loop` only.
        in_force: of the writer that runs now.
        terms: of each policy.
        port: where the shipped listener is.
        scoped_port: where the second one is, whose policy asks for a scope.
        config: of Envoy.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.scoped_port, self._app_port = (free_port() for _ in range(3))
        self.config = folder / "envoy.yaml"
        self._write_config()
        self._processes = ProcessFactory(folder)
        self.envoy: Process | None = None
        self.terms = usual_terms()
        self._keys: Sequence[TestKey] = [signing_key()]
        self._entries: list[FeedEntry] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._position = 0
        self._writing: contextlib.AsyncExitStack | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._admin = EnvoyAdmin(str(folder / "envoy-admin.sock"))

    def _write_config(self) -> None:
        """Put in the addresses, and a second listener for the policy with a scope."""
        self.config.write_text((CONFIGS / "envoy-native" / "envoy.yaml").read_text())
        addresses = Addresses(gateway=self.port, app=self._app_port)
        put_addresses(self.config, _FORM, addresses, ("gateway", "app"))
        put_texts(self.config, {_FOLDER: f"{self.folder}/"})
        text = self.config.read_text()
        start = text.index("  - name: gateway\n")
        end = text.index("\n  clusters:\n")
        second = text[start:end].replace(str(self.port), str(self.scoped_port))
        second = second.replace("default\n", f"{SCOPED}\n")
        second = second.replace("- name: gateway\n", "- name: second\n")
        second = second.replace("&closed", "&shut").replace("*closed", "*shut")
        self.config.write_text(text[:end] + "\n" + second + text[end:])

    # --- starting and stopping -------------------------------------------------------

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run all of it while the context is open."""
        self._thread.start()
        try:
            self.on_loop(self._serve_app())
            self.start_writer()
            self.start_envoy()
            self.wait_until_proven()
            yield
        finally:
            self._processes.stop_all()
            self.stop_writer()
            self.on_loop(self._close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _serve_app(self) -> None:
        self._app = await asyncio.start_server(_answer, HOST, self._app_port)

    async def _close(self) -> None:
        await self._admin.close()
        self._app.close()
        await self._app.wait_closed()

    def start_envoy(self) -> None:
        """Start Envoy; return when it listens."""
        binary = find_in_environment("envoy")
        assert binary is not None, "Envoy is not installed: make setup"
        command = [str(binary), "-c", str(self.config), "--disable-hot-restart"]
        command += ["--concurrency", str(WORKERS), "--log-level", "error"]
        self.envoy = self._processes.start(
            "envoy", command, ready=lambda: self.send(()).status
        )

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Let every thread of Envoy stand still while the context is open."""
        assert self.envoy is not None
        threads = Path(f"/proc/{self.envoy.pid}/task")

        def stand_still() -> bool:
            stats = [(each / "stat").read_text() for each in threads.iterdir()]
            return {stat.rpartition(")")[2].split()[0] for stat in stats} == {"T"}

        self.envoy.send_signal(signal.SIGSTOP)
        try:
            wait_until(stand_still)
            yield
        finally:
            self.envoy.send_signal(signal.SIGCONT)

    def start_writer(self, fresh_for: float = 0) -> None:
        """Begin to write, as a new process does that has read all of the feed.

        Args:
            fresh_for: seconds for which what is trusted counts; 0: there is news all
                the time.
        """
        self.on_loop(self._start_writer(fresh_for or FRESH))
        if not fresh_for:
            self.keep_fresh()

    def keep_fresh(self) -> None:
        """Let there be news all the time, until the writer stops."""

        async def begin() -> None:
            self._renewing = asyncio.create_task(self._renew())

        self.on_loop(begin())

    async def _renew(self) -> None:
        while True:
            self.trust.renew(boottime() + FRESH)
            await asyncio.sleep(1)

    async def _start_writer(self, fresh_for: float) -> None:
        self.trust = KeepingTrust(ISSUER)
        self.trust.enforce(self._entries)
        trusted = key_set([key.jwk for key in self._keys])
        self.trust.trust_keys(ISSUER, trusted, boottime() + LONG)
        self.trust.renew(boottime() + fresh_for)
        # What the writer before this one wrote counts as over.
        self.in_force = InForce(boottime, 0)
        self.in_force.reached(EPOCH, self._position)
        self.source = ContentSource(
            self.trust, self.in_force, lambda: self.terms, boottime, time.time
        )
        self.server = XdsServer(
            f"unix:{self.folder}/envoy-xds.sock",
            self.source,
            self.in_force,
            EnvoyAdmin(str(self.folder / "envoy-admin.sock")),
        )
        self._writing = contextlib.AsyncExitStack()
        await self._writing.enter_async_context(self.server.writing())

    def stop_writer(self) -> None:
        """Stop writing; Envoy keeps what it has."""
        if self._writing is not None:
            self.on_loop(self._stop_writer(self._writing))
            self._writing = None

    async def _stop_writer(self, writing: contextlib.AsyncExitStack) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
            self._renewing = None
        await writing.aclose()

    # --- what is trusted -------------------------------------------------------------

    def on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what the work returns, done in the thread of the writer."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(4 * _SECONDS)

    def trust_keys(self, keys: Sequence[TestKey]) -> None:
        """Trust these keys alone; return when that is in force."""
        self._keys = keys
        self.trust_key_set(key_set([key.jwk for key in keys]))

    def trust_key_set(
        self, trusted: KeySet, terms: Mapping[str, NativeTerms] | None = None
    ) -> None:
        """Trust these keys alone, on other terms if given, until the next start of the
        writer; return when that is in force.
        """
        if terms is not None:
            self.terms = dict(terms)

        async def change() -> None:
            self.trust.trust_keys(ISSUER, trusted, boottime() + LONG)
            await self.proven(self._next())

        self.on_loop(change())

    def forget_entries(self) -> None:
        """Have no revocation any more, as when all are pruned."""
        self._entries.clear()
        now = int(time.time())

        async def change() -> None:
            self.trust.entries.prune(now + 10 * LONG)

        self.on_loop(change())

    def revoke(self, kind: EntryKind, key: str, generation: int = 0) -> None:
        """Put a revocation in force; return when that is proven."""
        self.on_loop(self.revoking(kind, key, generation))

    def enforce_later(self, kind: EntryKind, key: str) -> int:
        """Let an entry come; return its position at once."""

        async def change() -> int:
            return self.enforce(kind, key)

        return self.on_loop(change())

    def is_written(self, position: int) -> bool:
        """Return whether the position is in force in an Envoy that is connected."""

        async def ask() -> bool:
            return self._is_proven(position)

        return self.on_loop(ask())

    async def revoking(self, kind: EntryKind, key: str, generation: int = 0) -> None:
        """Do the same, in the thread of the writer."""
        position = self.enforce(kind, key, generation)
        await self.proven(position)

    def enforce(self, kind: EntryKind, key: str, generation: int = 0) -> int:
        """Let an entry come, in the thread of the writer; return its position."""
        until = int(time.time()) + LONG
        entry = FeedEntry(self._position + 1, kind, key, generation, until)
        self._entries.append(entry)
        self.trust.enforce([entry])
        return self._next()

    def _next(self) -> int:
        self._position += 1
        self.in_force.reached(EPOCH, self._position)
        return self._position

    async def proven(self, position: int) -> None:
        """Return when the position is in force in an Envoy that we are connected to."""
        end = time.monotonic() + _SECONDS
        while not self._is_proven(position):
            assert time.monotonic() < end, self.errors()
            await asyncio.sleep(0.001)

    def _is_proven(self, position: int) -> bool:
        # A process that was sent nothing yet is not waited for.
        has_all = self.in_force.reached_processes > 0 and self.in_force.written > 0
        return has_all and self.in_force.position(EPOCH) >= position

    def wait_until_proven(self) -> None:
        """Return when this writer's window is in force, and requests pass in it."""
        claims = good_claims(int(time.time()), sid="probe", jti="probe", sub="probe")
        probe = make_token(claims, key=self._keys[0])

        def is_proven() -> bool:
            streams = [name.split()[-1] for name in self.server.writers]
            # Envoy still has the window of a writer before this one.
            state = self.states()[f"{RECENT}default"]
            is_whole = state.taken == state.completed
            is_ours = state.version.split("-")[0] in streams and is_whole
            return is_ours and self.send_token(probe).status == 200

        wait_until(is_proven, deadline=_SECONDS, what=f"proven; {self.errors()}")

    def errors(self) -> list[str]:
        """Return why the writers' last writes failed."""
        return [writer.last_error for writer in self.server.writers.values()]

    def states(self) -> Mapping[str, FilterState]:
        """Return what Envoy says of its filters."""
        return self.on_loop(self._admin.read())

    def reset_counters(self) -> None:
        """Reset them over Envoy's admin interface, when nothing is on its way."""
        wait_until(lambda: self.is_written(self._position))
        self._ask_admin("POST", "reset_counters")

    def admin_connections(self) -> int:
        """Return how many connections its admin interface has had."""
        name = "listener.admin.downstream_cx_total"
        text = self._ask_admin("GET", f"stats?filter=^{name}$")
        return int(text.removeprefix(f"{name}: "))

    def _ask_admin(self, method: str, path: str) -> str:
        transport = httpx.HTTPTransport(uds=str(self.folder / "envoy-admin.sock"))
        with httpx.Client(transport=transport, trust_env=False) as client:
            answer = client.request(method, f"http://envoy/{path}")
        return answer.raise_for_status().text

    # --- requests --------------------------------------------------------------------

    def send(self, headers: Headers, port: int = 0, path: str = "/") -> Answer:
        """Return the answer to a request on a connection of its own."""
        return self.on_loop(self.sending(headers, port, path))

    def send_token(self, token: bytes, port: int = 0) -> Answer:
        """Return the answer to a request with this token."""
        return self.send([("Authorization", f"Bearer {token.decode()}")], port)

    def statuses(self, tokens: Iterable[bytes]) -> list[int]:
        """Return the status for each token; 0 where Envoy closes the connection."""
        return self.on_loop(self._statuses(list(tokens)))

    async def _statuses(self, tokens: Sequence[bytes]) -> list[int]:
        found, reader, writer = [], None, None
        for token in tokens:
            if writer is None or reader is None:
                reader, writer = await asyncio.open_connection(HOST, self.port)
            lines = b"GET / HTTP/1.1\r\nHost: a.test\r\nAuthorization: Bearer "
            writer.write(lines + token + b"\r\n\r\n")
            try:
                answer = await read_answer(reader)
            except (asyncio.IncompleteReadError, ConnectionError):
                answer = Answer(0, {"connection": "close"}, ())
            found.append(answer.status)
            if answer.headers.get("connection") == "close":
                writer.close()
                writer = None
        if writer is not None:
            writer.close()
        return found

    def begin_request(self, token: bytes) -> BegunRequest:
        """Send the first line of a request; the rest is for `send_rest`."""
        return self.on_loop(self._begin(token))

    async def _begin(self, token: bytes) -> BegunRequest:
        reader, writer = await asyncio.open_connection(HOST, self.port)
        credential = ("Authorization", f"Bearer {token.decode()}")
        raw = request_of([credential, ("Connection", "close")])
        first, rest = raw[:20], raw[20:]
        writer.write(first)
        await writer.drain()
        return BegunRequest(reader, writer, rest)

    def finish_request(self, begun: BegunRequest) -> Answer:
        """Send the rest of a request; return the answer."""
        self.send_rest(begun)
        return self.answer_of(begun)

    def send_rest(self, begun: BegunRequest) -> None:
        """Send the rest of a request."""

        async def send() -> None:
            begun.writer.write(begun.rest)
            await begun.writer.drain()

        self.on_loop(send())

    def answer_of(self, begun: BegunRequest) -> Answer:
        """Return the answer to a request that was sent."""

        async def read() -> Answer:
            try:
                return await read_answer(begun.reader)
            finally:
                begun.writer.close()

        return self.on_loop(read())

    async def sending(self, headers: Headers, port: int = 0, path: str = "/") -> Answer:
        """Do the same as `send`, in the thread of the writer."""
        reader, writer = await asyncio.open_connection(HOST, port or self.port)
        try:
            writer.write(request_of([*headers, ("Connection", "close")], path))
            return await read_answer(reader)
        finally:
            writer.close()


@contextlib.contextmanager
def native_envoy() -> Iterator[NativeEnvoy]:
    """Run Envoy, writer and application; skip, or fail in CI, without Envoy."""
    require("envoy")
    # The paths of unix sockets are short.
    with tempfile.TemporaryDirectory(prefix="native") as folder:
        native = NativeEnvoy(Path(folder))
        with native.running():
            yield native


def usual_terms(
    issuer: str = ISSUER, audience: str = AUDIENCE
) -> dict[str, NativeTerms]:
    """Return the terms of the policies of both listeners."""
    token = TokenPolicy.own(issuer, audience)
    asked = Requirements(required_scopes=frozenset({SCOPE}))
    policies = [Policy("default", token), Policy(SCOPED, token, requirements=asked)]
    return {policy.name: native_terms(policy) for policy in policies}


def request_of(headers: Headers, path: str = "/") -> bytes:
    """Return a request without a body."""
    lines = [f"GET {path} HTTP/1.1", "Host: a.test"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Read one answer."""
    async with asyncio.timeout(_SECONDS):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = head.split("\r\n")
        pairs = [line.partition(": ") for line in lines if line]
        headers = {name.lower(): value for name, _, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    code = int(status.split()[1])
    reached = json.loads(body) if "x-from-app" in headers else []
    return Answer(code, headers, [tuple(pair) for pair in reached])


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve the application: say which header lines it got."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            pairs = [line.split(": ", 1) for line in head.split("\r\n")[1:] if line]
            body = json.dumps([[name.lower(), value] for name, value in pairs]).encode()
            length = f"content-length: {len(body)}\r\n\r\n"
            writer.write(
                f"HTTP/1.1 200 OK\r\nx-from-app: 1\r\n{length}".encode() + body
            )
            await writer.drain()
    writer.close()
