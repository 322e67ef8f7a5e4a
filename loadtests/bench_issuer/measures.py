"""What is measured, one number or set of numbers each, and the goals drawn from
them.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import cycle
from typing import TypeVar

import bcrypt
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from issuer.hashing.hashing_pool import stand_back
from loadtests.bench.cpu import cpu_ns
from loadtests.bench_issuer.client import Answer, Connections
from loadtests.bench_issuer.environment import PASSWORD, Environment

T = TypeVar("T")
#: Refreshes a second beside the flood, and without it: enough for a 99th percentile.
REFRESH_RATE = 50
SESSIONS = 20
#: The flood, as a multiple of the pool's hashing rate.
FLOOD = 50


class BenchError(Exception):
    """An answer was wrong or missing; the message names it."""


@dataclass(slots=True)
class Round:
    """The numbers of one round; times in seconds unless named otherwise.

    Attributes:
        hashes_per_second: the rate of the pool's threads with nothing else to do.
        logins_per_second: the issuer's rate at saturation.
        refresh_cpu_us: processor time of the issuer for one refresh.
        signature_us: one RS256 signature.
        calm_p99: of refreshes without a flood.
        flood_p99: of refreshes during it.
        excess_p50: of the flood's 503 and 429.
        excess_p99: likewise.
        excess_max: likewise.
        excess: how many of them.
        flood_logins: how many of the flood got in.
    """

    hashes_per_second: float = 0.0
    logins_per_second: float = 0.0
    refresh_cpu_us: float = 0.0
    signature_us: float = 0.0
    calm_p99: float = 0.0
    flood_p99: float = 0.0
    excess_p50: float = 0.0
    excess_p99: float = 0.0
    excess_max: float = 0.0
    excess: int = 0
    flood_logins: int = 0


@dataclass(frozen=True, slots=True)
class Goal:
    """A number of a round with its required and its desired bound."""

    title: str
    of: Callable[[Round], float]
    must: float
    aim: float
    at_least: bool = False

    def verdict(self, value: float) -> str:
        """Return `aim`, `must` or `MISSED`."""
        for bound, word in ((self.aim, "aim"), (self.must, "must")):
            if value >= bound if self.at_least else value <= bound:
                return word
        return "MISSED"


GOALS = (
    Goal(
        "logins per second / what the pool's cores can hash",
        lambda r: r.logins_per_second / r.hashes_per_second,
        0.93,
        0.98,
        at_least=True,
    ),
    Goal(
        "CPU of one refresh on PostgreSQL / one RS256 signature",
        lambda r: r.refresh_cpu_us / r.signature_us,
        5,
        3,
    ),
    Goal(
        f"p99 of refresh in a login flood of {FLOOD} times capacity / without",
        lambda r: r.flood_p99 / r.calm_p99,
        3,
        1.5,
    ),
    Goal(
        "excess logins of that flood answered 503 or 429 within (p99), ms",
        lambda r: r.excess_p99 * 1_000,
        100,
        20,
    ),
)


async def measure(environment: Environment, seconds: int) -> Round:
    """Return one round of everything.

    Raises:
        BenchError: when an answer is wrong.
    """
    connections = Connections(environment.port)
    try:
        found = Round(signature_us=_time_signature())
        sessions = await _open_sessions(connections, environment)
        before = await asyncio.to_thread(_hash_rate, environment, seconds / 2)
        found.logins_per_second = await _login_rate(connections, environment, seconds)
        after = await asyncio.to_thread(_hash_rate, environment, seconds / 2)
        found.hashes_per_second = (before + after) / 2
        found.refresh_cpu_us = await _refresh_cpu(
            connections, environment, sessions, seconds
        )
        found.calm_p99 = percentile(await _refresh(connections, sessions, seconds), 99)
        await _measure_flood(connections, environment, sessions, seconds, found)
    except (OSError, TimeoutError) as error:
        raise BenchError(f"no answer: {error!r}") from error
    finally:
        connections.close()
    return found


def percentile(values: list[float], share: int) -> float:
    """Return the value that `share` percent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)]


def _time_signature() -> float:
    key = rsa.generate_private_key(65_537, 2_048)
    count = 200
    began = time.process_time()
    for _ in range(count):
        key.sign(b"x" * 600, padding.PKCS1v15(), SHA256())
    return (time.process_time() - began) / count * 1e6


def _hash_rate(environment: Environment, seconds: float) -> float:
    """Hash on as many threads as the pool has, as nice as its, and nothing else.

    Half before the logins are measured and half after: other work that comes and goes
    weighs on both alike.
    """
    stamps: list[float] = []
    end = time.perf_counter() + seconds

    def work() -> None:
        stand_back()
        salt = bcrypt.gensalt(environment.cost)
        while time.perf_counter() < end:
            bcrypt.hashpw(b"x" * 64, salt)
            stamps.append(time.perf_counter())

    threads = [threading.Thread(target=work) for _ in range(environment.workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return _rate(stamps, environment.workers)


def _rate(stamps: list[float], workers: int) -> float:
    """Between ends, not over a window: a hash takes a good part of a second."""
    stamps.sort()
    first, last = stamps[workers - 1], stamps[-1]
    return (len(stamps) - workers) / (last - first)


async def _log_in(connections: Connections, username: str) -> Answer:
    body = {"username": username, "password": PASSWORD}
    return await connections.post("/auth/login", body)


async def _login_rate(
    connections: Connections, environment: Environment, seconds: int
) -> float:
    """Keep every thread and a short queue busy with right passwords."""
    usernames = cycle(environment.usernames)
    stamps: list[float] = []
    end = time.perf_counter() + seconds

    async def work() -> None:
        while time.perf_counter() < end:
            answer = await _log_in(connections, next(usernames))
            stamps.append(time.perf_counter())
            _require(answer, {200})

    await asyncio.gather(*(work() for _ in range(3 * environment.workers + 1)))
    return _rate(stamps, environment.workers)


@dataclass(slots=True)
class Session:
    """One refresh family; its tokens are used one after the other."""

    token: str
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def refresh(self, connections: Connections) -> float:
        """Exchange the token; return how long it took."""
        async with self.lock:
            body = {"refresh_token": self.token}
            answer = await connections.post("/auth/refresh", body)
            _require(answer, {200})
            self.token = answer.json()["refresh_token"]
            return answer.seconds


async def _open_sessions(
    connections: Connections, environment: Environment
) -> list[Session]:
    sessions = []
    for username in environment.usernames[:SESSIONS]:
        answer = await _log_in(connections, username)
        _require(answer, {200})
        sessions.append(Session(answer.json()["refresh_token"]))
    return sessions


async def _refresh_cpu(
    connections: Connections,
    environment: Environment,
    sessions: list[Session],
    seconds: int,
) -> float:
    """Refresh one after the other; return the issuer's processor time for one, us."""
    count = 0
    end = time.perf_counter() + seconds
    began = cpu_ns(environment.pid)
    while time.perf_counter() < end:
        await sessions[count % len(sessions)].refresh(connections)
        count += 1
    return (cpu_ns(environment.pid) - began) / count / 1_000


async def _refresh(
    connections: Connections, sessions: list[Session], seconds: int
) -> list[float]:
    turns = cycle(sessions)
    return await _at_rate(
        REFRESH_RATE, seconds, lambda: next(turns).refresh(connections)
    )


async def _measure_flood(
    connections: Connections,
    environment: Environment,
    sessions: list[Session],
    seconds: int,
    found: Round,
) -> None:
    usernames = cycle(environment.usernames)
    rate = found.hashes_per_second * FLOOD
    flood = asyncio.create_task(
        _at_rate(rate, seconds + 1, lambda: _log_in(connections, next(usernames)))
    )
    # The queue fills in less than this; before, there is no excess.
    await asyncio.sleep(0.5)
    refreshes = await _refresh(connections, sessions, seconds)
    answers = await flood
    for answer in answers:
        _require(answer, {200, 429, 503})
    excess = [answer.seconds for answer in answers if answer.status != 200]
    if not excess:
        raise BenchError("the flood was no flood: every login was let in")
    found.flood_p99 = percentile(refreshes, 99)
    found.excess = len(excess)
    found.flood_logins = len(answers) - len(excess)
    found.excess_p50 = percentile(excess, 50)
    found.excess_p99 = percentile(excess, 99)
    found.excess_max = max(excess)


async def _at_rate(
    rate: float, seconds: int, act: Callable[[], Awaitable[T]]
) -> list[T]:
    """Begin `act` at a steady rate, whether or not earlier ones have ended."""
    tasks: list[asyncio.Future[T]] = []
    began = time.perf_counter()
    for number in range(int(rate * seconds)):
        wait = began + number / rate - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.ensure_future(act()))
    return list(await asyncio.gather(*tasks))


def _require(answer: Answer, statuses: set[int]) -> None:
    if answer.status not in statuses:
        raise BenchError(f"answered {answer.status}: {answer.body[:200]!r}")
