"""People at work, for Locust: log in, call through the gateway, refresh, log out.

    make up                                                  # in one terminal
    .venv/bin/python loadtests/locustfile.py                 # in another
    .venv/bin/python loadtests/locustfile.py --users 20 --seconds 60
    .venv/bin/locust -f loadtests/locustfile.py -t 5m        # with Locust's own page

It reads the addresses and the account from var/demo.env (GATEHOUSE_VAR names another
folder) and talks to loopback only: pointed at somebody else's machine it refuses to
run. It also refuses when issuer or gateway does not answer there.
A run is bounded: at most 50 users, ten minutes. Each call's answer is checked; a wrong
one is a failure and makes Locust end with code 1.
"""

from __future__ import annotations

import os
import sys
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import gevent
from locust import HttpUser, between, events, task
from locust.clients import ResponseContextManager
from locust.env import Environment

from deploy.demo.installation import read_env

MAX_USERS = 50
MAX_SECONDS = 600
LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_CALLS_PER_SESSION = 20
_NEEDED = ("ISSUER_URL", "GATEWAY_URL", "ADMIN_USERNAME", "ADMIN_PASSWORD")
#: The answers required before the load begins: 401 without a token.
_PROBES = (
    ("ISSUER_URL", "/.well-known/jwks.json", 200),
    ("GATEWAY_URL", "/", 401),
)
_NEXT_STEP = (
    "start `make up` in another terminal, wait for `gatehouse is up`, run again"
)
_PROPAGATION = 1.0


def demo_settings() -> dict[str, str]:
    """Return the names and values of demo.env.

    Raises:
        SystemExit: when nothing runs, or an address in it is not loopback.
    """
    path = _demo_file()
    if not path.is_file():
        raise SystemExit(f"{path} is not there: {_NEXT_STEP}")
    settings = read_env(path)
    missing = [name for name in _NEEDED if name not in settings]
    if missing:
        raise SystemExit(f"{path} has no {', '.join(missing)}: {_NEXT_STEP}")
    for name, value in settings.items():
        if name.endswith("_URL") and urlsplit(value).hostname not in LOOPBACK:
            raise SystemExit(f"{name} is not loopback; this load is for the demo only")
    return settings


def require_stack() -> None:
    """Return when issuer and gateway answer as `make up` has them answer.

    Raises:
        SystemExit: naming the address that does not, and the next step.
    """
    settings = demo_settings()
    for name, path, status in _PROBES:
        url = settings[name]
        found = _probe(url + path)
        if found is None:
            raise SystemExit(
                f"nothing answers at {url} ({name} in {_demo_file()}): {_NEXT_STEP}"
            )
        if found != status:
            raise SystemExit(
                f"{url}{path} answers {found} instead of {status} ({name} in "
                f"{_demo_file()}): another program listens there. {_NEXT_STEP}"
            )


def _demo_file() -> Path:
    return Path(os.environ.get("GATEHOUSE_VAR", "var")) / "demo.env"


def _probe(url: str) -> int | None:
    """Return the status of an answer; None without one."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()


@events.init.add_listener
def _bound(environment: Environment, **_: object) -> None:
    options: Namespace | None = environment.parsed_options
    if options is None:
        return
    require_stack()
    if (options.num_users or 0) > MAX_USERS:
        raise SystemExit(f"at most {MAX_USERS} users: this is a demo, not a benchmark")
    if not options.run_time or options.run_time > MAX_SECONDS:
        raise SystemExit(f"at most {MAX_SECONDS} seconds (-t)")
    if options.host and urlsplit(options.host).hostname not in LOOPBACK:
        raise SystemExit("only loopback: this load is for the demo")


@events.quitting.add_listener
def _require_work(environment: Environment, **_: object) -> None:
    if environment.stats.total.num_requests == 0:
        environment.process_exit_code = 1


class Person(HttpUser):
    """A user that logs in, works, stays logged in, and logs out for good."""

    # Locust requires one; every call here names its own.
    host = "http://127.0.0.1"
    wait_time = between(0.05, 0.2)

    def on_start(self) -> None:
        self.is_logged_in = False
        self.demo = demo_settings()
        self.log_in()

    def on_stop(self) -> None:
        if self.is_logged_in:
            self.log_out()

    @task
    def work_a_session(self) -> None:
        """Call, refresh half-way, and begin anew after logging out."""
        if not self.is_logged_in:
            self.log_in()
        if not self.is_logged_in:
            return  # counted as a failure; tried again after a wait
        for number in range(_CALLS_PER_SESSION):
            if number == _CALLS_PER_SESSION // 2:
                self.refresh()
            self.call()
            self.wait()
        self.log_out()

    def log_in(self) -> None:
        account = {
            "username": self.demo["ADMIN_USERNAME"],
            "password": self.demo["ADMIN_PASSWORD"],
        }
        self._take_tokens("/auth/login", account)

    def refresh(self) -> None:
        self._take_tokens("/auth/refresh", {"refresh_token": self.refresh_token})

    def _take_tokens(self, path: str, body: dict[str, str]) -> None:
        url = self.demo["ISSUER_URL"] + path
        with self.client.post(url, json=body, name=path, catch_response=True) as answer:
            if not _require(answer, 200):
                return
            tokens = answer.json()
        self.access_token: str = tokens["access_token"]
        self.refresh_token: str = tokens["refresh_token"]
        self.is_logged_in = True

    def call(self) -> None:
        with self._through_gateway("through the gateway") as answer:
            _require(answer, 200)

    def log_out(self) -> None:
        # Recorded first, because the run may end at any moment and no user logs out
        # twice.
        self.is_logged_in = False
        with self.client.post(
            self.demo["ISSUER_URL"] + "/auth/logout",
            headers=self._bearer(),
            name="/auth/logout",
            catch_response=True,
        ) as answer:
            _require(answer, 200)
        self.be_refused()

    def be_refused(self) -> None:
        """Call until the gate refuses the token, which must be within a second."""
        end = time.monotonic() + _PROPAGATION
        is_refused = False
        while not is_refused:
            with self._through_gateway("through the gateway, logged out") as answer:
                is_refused = answer.status_code == 401
                if is_refused or time.monotonic() < end:
                    answer.success()
                else:
                    answer.failure(f"{answer.status_code} a second after logout")
                    return
            gevent.sleep(0.05)

    def _through_gateway(self, name: str) -> ResponseContextManager:
        return self.client.get(
            self.demo["GATEWAY_URL"] + "/orders",
            headers=self._bearer(),
            name=name,
            catch_response=True,
        )

    def _bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access_token}"}


def _require(answer: ResponseContextManager, status: int) -> bool:
    """Count another status as a failure; return whether it is the right one."""
    if answer.status_code == status:
        return True
    # Locust's answer when none came.
    found = answer.status_code or "no answer: does `make up` still run?"
    answer.failure(f"{found} instead of {status}")
    return False


def main() -> None:
    """Run Locust without its page, within the bounds, in place of this process."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=4, help="people at once (4)")
    parser.add_argument("--rate", type=float, default=2, help="people per second (2)")
    parser.add_argument("--seconds", type=int, default=30, help="how long (30)")
    options = parser.parse_args()
    require_stack()
    asked = ["-u", options.users, "-r", options.rate, "-t", f"{options.seconds}s"]
    command = [sys.executable, "-m", "locust", "-f", __file__, "--headless"]
    os.execv(sys.executable, [*command, *map(str, asked)])


if __name__ == "__main__":
    main()
