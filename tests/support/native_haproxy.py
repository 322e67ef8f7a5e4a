"""A real HAProxy that checks tokens by itself, and what Gatehouse writes into it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from deploy.gateway_programs import registry
from deploy.gateway_programs.program import CONFIGS
from shared.feed import EntryKind, FeedEntry
from shared.jose.verification_keys import VerificationKey
from tests.support.haproxy_writing import Writing
from tests.support.kept_connection import KeptConnection
from tests.support.native_tokens import our_token
from tests.support.plain_app import Connection, plain_app
from tests.support.processes import (
    ProcessFactory,
    free_port,
    is_alive,
    is_listening,
    wait_until,
)
from tests.support.tokens import TestKey
from verifier.check.trust import key_set
from verifier.native.haproxy.directory import CONFIGURATION, MARK, usable_keys
from verifier.native.terms import NativeTerms

_PROMPT = re.compile(rb"master(?:\[ReloadFailed\])?> ")


class NativeHaproxy:
    """HAProxy on the config of deploy/gateways/haproxy-native, before an application.

    Args:
        folder: for everything; a short path.
        factory: starts HAProxy.
        terms: of the policies; `default` has the shipped frontend.
        keys: of the issuer.
        further: sections of its configuration. A policy that they use has no frontend
            besides.

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
        further: str = "",
    ) -> None:
        self._folder = folder
        self._further = further
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

    @property
    def directory(self) -> Path:
        return self._folder / "d"

    def _new_writing(self) -> Writing:
        return Writing(
            self._terms, self.socket, self.directory, self.keys, self.entries
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
            is_used = f" from gatehouse-{name}\n" in self._further
            if name != "default" and not is_used:
                config += _FRONTEND.format(name=name, port=port)
        (self._folder / "haproxy.cfg").write_text(f"{config}\n{self._further}")
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

    def settle(self) -> None:
        """Wait until HAProxy is open and has the keys of now, so no reload is due."""
        wait_until(self._is_settled, what="no reload is due")
        self.wait_until_open()

    def _is_settled(self) -> bool:
        text = (self._folder / "d" / CONFIGURATION).read_text()
        revoked = {entry.key for entry in self.entries if entry.kind is EntryKind.KID}
        wanted = [key for key in usable_keys(self.keys) if key.kid not in revoked]
        mark = re.search(rf"setenv ({MARK}) (\S+)", text)
        if mark is None or not all(f"{key.fingerprint}.pem" in text for key in wanted):
            return False
        shown = self.master(f"@!{self.worker()} show env {MARK}")
        return "=".join(mark.groups()) in shown

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
            while len(_PROMPT.findall(answer)) < 2 and (data := stream.recv(65536)):
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
    def failed_reload(self) -> Iterator[None]:
        """Fail a reload before, for a mistake in the configuration, and end it well."""
        path = self._folder / "haproxy.cfg"
        good = path.read_text()
        path.write_text(good + "\na mistake\n")
        try:
            self.master("reload")
            wait_until(
                lambda: "ReloadFailed" in self.master("show proc"), what="failed"
            )
            yield
        finally:
            path.write_text(good)
            self.reload()

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


@contextmanager
def running_haproxy(
    terms: Iterable[NativeTerms], keys: Iterable[TestKey], further: str = ""
) -> Iterator[NativeHaproxy]:
    """Run a HAProxy with these policies and what writes into it."""
    # The path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory() as name:
        factory = ProcessFactory(Path(name))
        policies = {t.policy: t for t in terms}
        site = NativeHaproxy(Path(name), factory, policies, keys, further)
        try:
            with site.application():
                site.start()
                yield site
                site.writing.stop()
        finally:
            factory.stop_all()


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
