"""The measures, and their bounds."""

from __future__ import annotations

import asyncio
import base64
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from loadtests.bench_issuer.client import Connections
from loadtests.bench_revocation.environment import (
    BenchError,
    Environment,
    in_turns,
    running,
)
from loadtests.support.raw_http import send

#: Of each followers' measure, besides the real verifier.
FEW, MANY = 20, 100
_PATIENCE = 10.0
_CALLERS = 16


class Goal(NamedTuple):
    """One bound.

    Attributes:
        measure: which figure.
        must: the project's bound.
        aim: its wish.
        unit: of both.
        at_least: whether more is better.
    """

    measure: str
    must: float
    aim: float
    unit: str
    at_least: bool = False

    def reached(self, value: float) -> str:
        """Return `aim`, `must` or `MISSED`."""
        for word, bound in (("aim", self.aim), ("must", self.must)):
            if value >= bound if self.at_least else value <= bound:
                return word
        return "MISSED"


GOALS = (
    Goal("first refusal through nginx, p99", 100, 20, "ms"),
    Goal("confirmed with 20 followers, sqlite, p99", 150, 40, "ms"),
    Goal("confirmed with 20 followers, postgres, p99", 150, 40, "ms"),
    Goal("1,000,000 entries from the issuer, sqlite", 10, 3, "s"),
    Goal("1,000,000 entries from the issuer, postgres", 10, 3, "s"),
    Goal("1,000,000 entries from disk", 10, 3, "s"),
    Goal("revocations on postgres", 500, 2_000, "1/s", at_least=True),
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One number; `samples` are the values behind it, if any."""

    name: str
    value: float
    unit: str
    samples: tuple[float, ...] = ()


def figures_of(name: str, seconds: Sequence[float]) -> list[Figure]:
    """Return median, p99 and maximum of delays, in milliseconds."""
    delays = tuple(second * 1_000 for second in seconds)
    return [
        Figure(f"{name}, p50", statistics.median(delays), "ms"),
        Figure(f"{name}, p99", percentile(delays, 99), "ms", delays),
        Figure(f"{name}, max", max(delays), "ms"),
    ]


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value that `percent` of the values do not exceed (nearest rank)."""
    rank = -(-len(values) * percent // 100)
    return sorted(values)[max(rank, 1) - 1]


async def refusals(environment: Environment, samples: int) -> list[Figure]:
    """Revoke call sent -> first refusal of a client that asks nginx without a pause."""
    nginx = environment.start_nginx()
    delays = []
    for token in await environment.mint(samples):
        request = _request(token)
        if await _ask(nginx, request) != 200:
            raise BenchError("nginx refuses a good token")
        began = time.monotonic()
        refused, _ = await asyncio.gather(
            _refused(nginx, request), environment.revoke(token)
        )
        delays.append(refused - began)
    nginx.close()
    return figures_of("first refusal through nginx", delays)


async def confirmations(
    environment: Environment, samples: int, kind: str
) -> list[Figure]:
    """The whole time of a call that waits for its confirmation."""
    tokens = await environment.mint(samples)
    seconds = []
    with environment.followers(FEW - 1):
        for token in tokens:
            answer = await environment.revoke(token, wait=10)
            shown = answer.json()
            if not shown["confirmed"] or shown["followers"]["confirmed"] < FEW:
                raise BenchError(f"not confirmed by {FEW}: {shown}")
            seconds.append(answer.seconds)
    return figures_of(f"confirmed with {FEW} followers, {kind}", seconds)


async def deliveries(environment: Environment, samples: int) -> list[Figure]:
    """Revoke call sent -> entry at each of many followers."""
    tokens = await environment.mint(samples)
    sent: dict[str, float] = {}
    with environment.followers(MANY) as received:
        for token in tokens:
            sent[_jti(token)] = time.monotonic()
            await environment.revoke(token)
            # Ten a second: this measures a delivery, not a queue.
            await asyncio.sleep(0.1)
        await asyncio.sleep(1.0)
    last: dict[str, list[float]] = defaultdict(list)
    for key, at in received:
        if key in sent:
            last[key].append(at - sent[key])
    if any(len(last[key]) != MANY for key in sent):
        raise BenchError("an entry did not reach every follower")
    each = [delay for delays in last.values() for delay in delays]
    return [
        *figures_of(f"entry at {MANY} followers, each", each),
        *figures_of(
            f"entry at {MANY} followers, the last of them", [*map(max, last.values())]
        ),
    ]


async def rate(environment: Environment, calls: int, name: str) -> list[Figure]:
    """Single calls by several callers at once, as fast as they are answered."""
    tokens = await environment.mint(calls)
    began = time.monotonic()
    await in_turns(_CALLERS, environment.revoke, tokens)
    return [Figure(name, calls / (time.monotonic() - began), "1/s")]


def loads(kind: str, entries: int) -> list[Figure]:
    """How long a verifier takes to have all live entries."""
    name = f"{entries:,} entries from"
    with running(kind, entries=entries) as environment:
        figures = [
            Figure(f"{name} the issuer, {kind}", _snapshot_time(environment), "s")
        ]
        if kind == "sqlite":
            figures.append(Figure(f"{name} disk", _copy_time(environment), "s"))
        return figures


def _snapshot_time(environment: Environment) -> float:
    """From the start of following, which the first log line has, to the last entry."""
    logged = _logged(environment)
    return logged["feed.snapshot_taken"] - logged["verifier.started"]


def _copy_time(environment: Environment) -> float:
    """From the start of the process until it answers from its copy."""
    gate = environment.fleet.gates["bench"]
    environment.fleet.kill_issuer()
    environment.verifier.kill()
    began = time.time()
    environment.fleet.start_gate(gate, ready="/healthz")
    environment.verifier.wait_until(lambda: "copy.read" in environment.verifier.log())
    held = send(gate.admin, "GET", "/status").json()["feed"]
    if not held["position"]:
        raise BenchError(f"the copy was not read: {held}")
    return _logged(environment)["copy.read"] - began


def _logged(environment: Environment) -> dict[str, float]:
    """Return the first time of each event of the verifier's log, Unix seconds."""
    times: dict[str, float] = {}
    for line in environment.verifier.log().splitlines():
        shown = json.loads(line)
        times.setdefault(
            shown["event"], datetime.fromisoformat(shown["time"]).timestamp()
        )
    return times


async def _refused(nginx: Connections, request: bytes) -> float:
    end = time.monotonic() + _PATIENCE
    while await _ask(nginx, request) != 401:
        if time.monotonic() > end:
            raise BenchError(f"not refused within {_PATIENCE} s")
    return time.monotonic()


async def _ask(nginx: Connections, request: bytes) -> int:
    try:
        return (await nginx.send(request)).status
    except ConnectionError:
        # nginx closes a connection after 1,000 requests.
        return (await nginx.send(request)).status


def _request(token: str) -> bytes:
    head = "GET /orders HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "
    return f"{head}{token}\r\n\r\n".encode()


def _jti(token: str) -> str:
    payload = token.split(".")[1]
    jti: str = json.loads(base64.urlsafe_b64decode(payload + "=="))["jti"]
    return jti
