"""A day of users with attackers, for Locust, compressed into seconds.

    make up                                                  # in one terminal
    .venv/bin/python loadtests/locustfile.py                 # in another
    .venv/bin/python loadtests/locustfile.py --users 20 --seconds 300
    .venv/bin/locust -f loadtests/locustfile.py -t 5m        # with Locust's own page

The number of users follows a day: night, a morning peak, lunch, evening. `--steady`
keeps it even. People, programs and administrators work (loadtests/day/people.py) while
attackers try to get through (loadtests/day/attackers.py).

It reads the addresses and the account from var/demo.env (GATEHOUSE_VAR names another
folder) and talks to loopback only: pointed at somebody else's machine it refuses to
run. It also refuses when issuer or gateway does not answer there.
A run is bounded: at most 50 users, 13 hours. Each call's answer is checked; a wrong
one, such as an attacker's that passes, is a failure and makes Locust end with code 1.
`--record FILE` writes what happened, by second, for loadtests/day/picture.py.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

from locust import LoadTestShape, events
from locust.env import Environment

from loadtests.day.attackers import Forger as Forger
from loadtests.day.attackers import Guesser as Guesser
from loadtests.day.attackers import PathTrickster as PathTrickster
from loadtests.day.attackers import Replayer as Replayer
from loadtests.day.attackers import Spoofer as Spoofer
from loadtests.day.calls import DayUser as _DayUser
from loadtests.day.cast import Cast, CastError
from loadtests.day.demo import demo_settings, require_bounds, require_stack
from loadtests.day.people import Administrator as Administrator
from loadtests.day.people import Person as Person
from loadtests.day.people import Program as Program
from loadtests.day.people import Script as Script
from loadtests.day.record import Record
from loadtests.day.shape import users_at


@events.init_command_line_parser.add_listener
def _add_options(parser: Any, **_: object) -> None:
    parser.add_argument("--steady", action="store_true", help="as many users all day")
    parser.add_argument("--record", default="", help="file for what happened")


@events.init.add_listener
def _begin(environment: Environment, **_: object) -> None:
    options: Namespace | None = environment.parsed_options
    if options is None:
        return
    require_stack()
    require_bounds(options)
    try:
        _DayUser.cast = Cast(demo_settings())
    except (OSError, CastError) as error:
        raise SystemExit(str(error)) from None
    # In a short day a session must still end before the day does.
    slowest = 2.0 if options.steady else 4.0
    _DayUser.pace = min(slowest, max(1.0, options.run_time / 60))
    if options.record:
        _DayUser.record = Record(environment, Path(options.record), options.run_time)


@events.quitting.add_listener
def _finish(environment: Environment, **_: object) -> None:
    if environment.stats.total.num_requests == 0:
        environment.process_exit_code = 1
    if hasattr(_DayUser, "cast"):
        _DayUser.cast.remove()
    if _DayUser.record is not None:
        _DayUser.record.write()


class Day(LoadTestShape):
    """As many users as the time of the day asks for."""

    #: So that `-u`, `-r` and `-t` are the day's most users, pace and length.
    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """Return how many users there are now, and how many may come a second."""
        assert self.runner is not None
        options = self.runner.environment.parsed_options
        assert options is not None
        most, rate = options.num_users or 1, options.spawn_rate or 1.0
        passed = self.get_run_time() / options.run_time
        if passed >= 1.0:
            return None
        return (most if options.steady else users_at(passed, most)), rate


def main() -> None:
    """Run Locust without its page, within the bounds, in place of this process."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=12, help="at most at once (12)")
    parser.add_argument("--rate", type=float, default=4, help="new a second (4)")
    parser.add_argument("--seconds", type=int, default=30, help="the day's length (30)")
    parser.add_argument("--steady", action="store_true", help="as many users all day")
    parser.add_argument("--html", default="", help="file for Locust's report")
    parser.add_argument("--record", default="", help="file for what happened, JSON")
    options = parser.parse_args()
    require_stack()
    asked = ["-u", options.users, "-r", options.rate, "-t", f"{options.seconds}s"]
    asked += ["--steady"] if options.steady else []
    asked += ["--html", options.html] if options.html else []
    asked += ["--record", options.record] if options.record else []
    command = [sys.executable, "-m", "locust", "-f", __file__, "--headless"]
    os.execv(sys.executable, [*command, *map(str, asked)])


if __name__ == "__main__":
    main()
