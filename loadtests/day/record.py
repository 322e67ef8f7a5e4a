"""What happened in a day: answers, failures, times and refusals, by second.

The memory it takes is bounded: for each second of the run a fixed number of numbers.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gevent
from locust.env import Environment

from loadtests.day.demo import demo_settings, port_of
from loadtests.day.kinds import WRONG, kind_of, refusals_in, work_of
from loadtests.day.shape import phase_at
from loadtests.support.raw_http import send

#: Of each phase and kind of call, how many times are kept: its first so many.
_KEPT_TIMES = 20_000
#: Seconds between two looks at the gate's numbers.
_LOOK = 1.0


class Record:
    """Listens to every answer of a run, and looks at the gate's numbers.

    Args:
        environment: Locust's, whose events are listened to.
        path: the file that `write` makes.
        seconds: how long the run is.
    """

    def __init__(self, environment: Environment, path: Path, seconds: int) -> None:
        self._path = path
        self._seconds = seconds
        self._began: float | None = None
        self._kinds: dict[int, Counter[str]] = defaultdict(Counter)
        self._times: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._failures: Counter[str] = Counter()
        self._users: dict[int, int] = {}
        self._refusals: dict[int, Mapping[str, float]] = {}
        self._environment = environment
        environment.events.request.add_listener(self._note)
        environment.events.test_start.add_listener(self._start)
        environment.events.user_error.add_listener(self._note_error)

    def _start(self, **_: object) -> None:
        self._began = time.monotonic()
        gevent.spawn(self._look_again_and_again)

    def _second(self) -> int:
        return int(time.monotonic() - (self._began or time.monotonic()))

    def _note(
        self, name: str, response_time: float, exception: Any = None, **_: object
    ) -> None:
        second = self._second()
        kind = kind_of(name, exception is not None)
        self._kinds[second][kind] += 1
        if kind == WRONG:
            self._failures[f"{name}: {exception}"[:200]] += 1
            return
        times = self._times[phase_at(second / self._seconds), work_of(name)]
        if len(times) < _KEPT_TIMES:
            times.append(round(response_time, 2))

    def _note_error(self, exception: BaseException, **_: object) -> None:
        """Count what ended a user's work: Locust ends with 1 for it, and says nothing
        in its numbers.
        """
        error = f"{type(exception).__name__}: {exception}"
        self._failures[error[:200]] += 1

    def _look_again_and_again(self) -> None:
        demo = demo_settings()
        while self._second() <= self._seconds:
            runner = self._environment.runner
            self._users[self._second()] = runner.user_count if runner else 0
            if "VERIFIER_ADMIN_URL" in demo:
                try:
                    port = port_of(demo["VERIFIER_ADMIN_URL"])
                    text = send(port, "GET", "/metrics", timeout=5).body.decode()
                    self._refusals[self._second()] = refusals_in(text)
                except OSError:
                    pass  # it ends with the run
            gevent.sleep(_LOOK)

    def write(self) -> None:
        """Write the file."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(
            json.dumps(
                {
                    "seconds": self._seconds,
                    "kinds": self._kinds,
                    "users": self._users,
                    "failures": self._failures,
                    "times": [
                        {"phase": phase, "work": work, "ms": times}
                        for (phase, work), times in self._times.items()
                    ],
                    "refusals": self._refusals,
                }
            )
        )
