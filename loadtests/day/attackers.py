"""Attackers. One that gets through is a failure, and ends the run with code 1."""

from __future__ import annotations

import itertools
import time

from locust import task

from loadtests.day.calls import CONFIRMED, DayUser, bearer
from loadtests.day.forgeries import FORGERIES, end_of
from loadtests.day.kinds import ATTACK

#: Refusals of the gateway itself (400, 404, 405) and of the gate.
_REFUSED = (400, 401, 403, 404, 405)
#: Seconds that a clock may differ (VERIFIER_LEEWAY), and one.
_LEEWAY = 6

#: Headers by which an application behind a gateway knows its caller.
SPOOFED = (
    "X-Auth-Subject",
    "X-Auth-User",
    "X-Auth-Roles",
    "X-Auth-Scope",
    "X-Auth-Session",
    "X-Auth-Decision",
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Remote-User",
    "Remote-User",
    "X_Auth_Subject",
    "X-Auth-Request-User",
)
MALLORY = "mallory"

#: Targets that a program may read as another path than the one that was checked.
PATHS = (
    "/orders/../admin",
    "/orders/%2e%2e/admin",
    "//orders",
    "/orders;x=1/../..",
    "/orders%2f..%2fadmin",
    "/.//orders",
    "/orders%00",
    "/_gatehouse",
    "/_gatehouse/verify/nginx",
    "/verify/nginx",
    "/@gatehouse_forbidden",
    "http://127.0.0.1/orders",
    "/orders#/public",
    "\\orders",
)


class Guesser(DayUser):
    """Guesses passwords: of an account there is, and of names there may be."""

    weight = 1
    pauses = (0.3, 0.9)

    @task
    def guess(self) -> None:
        """Try one password of each."""
        known = self.cast.target("guessed").username
        for name in (known, f"somebody{self.number}"):
            body = {"username": name, "password": f"guess {time.monotonic_ns()}"}
            # 429: it has to wait by now. 503: the queue of the hashing threads is full.
            answers = (401, 429, 503)
            self.post("/auth/login", body, name=f"{ATTACK}guess", wanted=answers)


class Forger(DayUser):
    """Shows tokens that it made, and real ones whose time is over."""

    weight = 2

    def on_start(self) -> None:
        self.token = self.spent = ""
        self.forgeries = itertools.cycle(FORGERIES)

    @task(12)
    def show_a_forgery(self) -> None:
        """Show one forged token."""
        token = self._real_token()
        if token:
            forge = next(self.forgeries)
            name = ATTACK + forge.__name__.replace("_", " ")
            self.call(forge(token), name=name, wanted=(400, 401))

    @task(1)
    def show_two(self) -> None:
        """Show a good token beside a bad one: two readers could take either."""
        token = self._real_token()
        if token:
            lines = [
                ("Authorization", f"Bearer {token}"),
                ("Authorization", "Bearer x"),
            ]
            self.send_raw(f"{ATTACK}two credentials", _REFUSED, "/orders", lines)

    @task(1)
    def show_an_expired_one(self) -> None:
        """Show a real token whose end has passed."""
        if self.spent and end_of(self.spent) + _LEEWAY < time.time():
            self.call(self.spent, name=f"{ATTACK}expired", wanted=(401,))

    def _real_token(self) -> str:
        """Return a token that is good: a forgery must be refused for what it is."""
        if not self.token or end_of(self.token) - _LEEWAY < time.time():
            tokens = self.log_in(self.cast.target("insider"))
            self.spent = self.token
            self.token = tokens["access_token"] if tokens else ""
        return self.token


class Replayer(DayUser):
    """Has copied a refresh token, and uses it after its owner did (RFC 9700, 4.14)."""

    weight = 1
    pauses = (0.5, 1.5)

    @task
    def replay(self) -> None:
        """Replay: the thief is refused, and the session ends for both."""
        first = self.log_in(self.cast.target("robbed"))
        second = self._refresh(first)
        third = self._refresh(second)
        if not (first and third):
            return
        body = {"refresh_token": first["refresh_token"]}
        self.post("/auth/refresh", body, name=f"{ATTACK}replay", wanted=(401,))
        body = {"refresh_token": third["refresh_token"]}
        name = f"{ATTACK}refresh after a replay"
        self.post("/auth/refresh", body, name=name, wanted=(401,))
        # Without a confirmation, since the thief did not ask for one.
        self.be_refused(third["access_token"], None, f"{ATTACK}use after a replay")

    def _refresh(self, tokens: dict[str, str] | None) -> dict[str, str] | None:
        if not tokens:
            return None
        body = {"refresh_token": tokens["refresh_token"]}
        answer: dict[str, str] | None = self.post("/auth/refresh", body)
        return answer


class Spoofer(DayUser):
    """Writes an identity into headers, with and without a token of its own."""

    weight = 1
    pauses = (0.1, 0.4)

    def on_start(self) -> None:
        self.token = ""
        tokens = self.log_in(self.cast.target("insider"))
        if tokens:
            self.token = tokens["access_token"]

    def on_stop(self) -> None:
        if self.token:
            self.post("/auth/logout", None, headers=bearer(self.token) | CONFIRMED)

    @task
    def spoof(self) -> None:
        """Send the headers without a token, and with one."""
        lines = [(name, MALLORY) for name in SPOOFED]
        self.send_raw(f"{ATTACK}headers, no token", (401,), "/orders", lines)
        if not self.token:
            return
        if end_of(self.token) - _LEEWAY < time.time():
            self.on_start()
            return
        name = f"{ATTACK}headers, own token"
        lines.append(("Authorization", f"Bearer {self.token}"))
        answer = self.send_raw(name, (200,), "/orders", lines)
        if answer and answer.status == 200 and MALLORY in answer.body.decode():
            self.report(name, "the application sees the attacker's header")


class PathTrickster(DayUser):
    """Asks for paths that gateway and application may read differently."""

    weight = 1

    def on_start(self) -> None:
        self.paths = itertools.cycle(PATHS)

    @task
    def ask(self) -> None:
        """Ask for one of them, without a token."""
        path = next(self.paths)
        method = ("GET", "POST", "OPTIONS", "HEAD")[int(time.monotonic() * 10) % 4]
        self.send_raw(f"{ATTACK}path", _REFUSED, path, method=method)
