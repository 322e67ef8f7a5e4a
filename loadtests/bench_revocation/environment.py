"""The environment of the measurements: issuer, verifier and nginx, as shipped."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

from deploy.demo.addresses import Addresses
from deploy.demo.installation import APP_COMMAND, ROOT
from deploy.gateway_programs import registry
from loadtests.bench_issuer.client import Answer, Connections
from loadtests.bench_revocation.entries import fill
from loadtests.support.fleet import Fleet, prepare
from loadtests.support.postgres import PostgresServer
from loadtests.support.processes import (
    Process,
    ProcessFactory,
    free_port,
    is_listening,
)

Item = TypeVar("Item")
Result = TypeVar("Result")

DATABASES = ("sqlite", "postgres")


class BenchError(Exception):
    """An answer was wrong, so no number would mean anything; the message names it."""


@dataclass
class Environment:
    """A fleet with one verifier, and the tools to ask it.

    Attributes:
        fleet: the parts; issuer and verifier run.
        factory: starts more.
        database_url: of the issuer's database.
        client: id and secret of a client.
    """

    fleet: Fleet
    factory: ProcessFactory
    database_url: str
    client: str

    def __post_init__(self) -> None:
        self.issuer = Connections(self.fleet.replicas[0].port)
        pair = base64.b64encode(self.client.encode()).decode()
        self._authorization = f"Authorization: Basic {pair}\r\n"

    async def mint(self, count: int) -> list[str]:
        """Return that many access tokens of the client."""

        async def one(_number: int) -> str:
            answer = await self._post(
                "/oauth2/token", {"grant_type": "client_credentials"}
            )
            token: str = self._checked(answer).json()["access_token"]
            return token

        return await in_turns(8, one, range(count))

    async def revoke(self, token: str, wait: int | None = None) -> Answer:
        """Revoke a token; with `wait`, wait that many seconds for the confirmation."""
        prefer = "" if wait is None else f"Prefer: wait={wait}\r\n"
        return self._checked(
            await self._post("/oauth2/revoke", {"token": token}, prefer)
        )

    def start_nginx(self) -> Connections:
        """Start nginx with the shipped configuration, and the demo application."""
        gate = self.fleet.gates["bench"]
        assert isinstance(gate.address, int)
        addresses = Addresses(
            gateway=free_port(), app=free_port(), verifier=gate.address
        )
        app = (*APP_COMMAND, "--port", str(addresses.app))
        prepared = registry.prepare("nginx", self.fleet.folder / "nginx", addresses)
        for name, command, port in (
            ("app", app, addresses.app),
            ("nginx", prepared.command, addresses.gateway),
        ):
            self.factory.start(
                name, command, cwd=ROOT, ready=lambda port=port: is_listening(port)
            )
        return Connections(addresses.gateway)

    @contextmanager
    def followers(self, count: int) -> Iterator[list[tuple[str, float]]]:
        """Run followers; the list is filled with key and time of entries at the end."""
        received: list[tuple[str, float]] = []
        out = self.fleet.folder / "received.jsonl"
        port = self.fleet.replicas[0].port
        module = (sys.executable, "-m", "loadtests.bench_revocation.followers")
        options = ("--port", str(port), "--count", str(count), "--out", str(out))
        process = self.factory.start(
            "followers", (*module, *options), env=self.fleet.issuer_env, cwd=ROOT
        )
        process.wait_until(lambda: "following" in process.log(), what="followers")
        try:
            yield received
        finally:
            process.terminate()
        received.extend(map(tuple, map(json.loads, out.read_text().splitlines())))

    @property
    def verifier(self) -> Process:
        """The running verifier."""
        process = self.fleet.gates["bench"].process
        assert process is not None
        return process

    async def _post(self, path: str, form: dict[str, str], more: str = "") -> Answer:
        body = urlencode(form).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: a\r\n{self._authorization}{more}"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return await self.issuer.send(head.encode() + body)

    def _checked(self, answer: Answer) -> Answer:
        if answer.status != 200:
            raise BenchError(f"answered {answer.status}: {answer.body[:200]!r}")
        return answer


@contextmanager
def running(kind: str, *, workers: int = 1, entries: int = 0) -> Iterator[Environment]:
    """Run issuer and verifier for the length of the block; all of it is stopped at the
    end.

    Args:
        kind: one of `DATABASES`.
        workers: processes of the issuer.
        entries: live entries to begin with, put straight into the table.

    Raises:
        PostgresMissingError: when PostgreSQL is not installed.
    """
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="gatehouse-bench-"))
        )
        url = f"sqlite+aiosqlite:///{folder / 'issuer.db'}"
        if kind == "postgres":
            postgres = PostgresServer(is_durable=True)
            stack.callback(postgres.stop)
            url = postgres.url(postgres.create_database())
        factory = ProcessFactory(folder)
        stack.callback(factory.stop_all)
        secrets = prepare(url, folder)
        if entries:
            asyncio.run(fill(url, entries))
        fleet = Fleet(folder, factory, url, secrets)
        fleet.issuer_env["ISSUER_LOG_LEVEL"] = "error"
        fleet.issuer_env["ISSUER_WORKERS"] = str(workers)
        fleet.start_issuer()
        fleet.add_gate("bench", keeps_copy=True)
        yield Environment(fleet, factory, url, secrets.client)


async def in_turns(
    width: int, work: Callable[[Item], Awaitable[Result]], items: Iterable[Item]
) -> list[Result]:
    """Do `work` for each item, `width` at once; return the results in order."""
    waiting = iter(list(enumerate(items)))
    results: dict[int, Result] = {}

    async def take() -> None:
        for number, item in waiting:
            results[number] = await work(item)

    await asyncio.gather(*(take() for _ in range(width)))
    return [results[number] for number in sorted(results)]
