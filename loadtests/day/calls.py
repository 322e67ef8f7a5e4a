"""What every user of the day can do: call, and have each answer checked."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar

import gevent
from locust import HttpUser
from locust.clients import ResponseContextManager

from loadtests.day.cast import Account, Cast
from loadtests.day.demo import port_of
from loadtests.support.raw_http import RawAnswer, send

#: Seconds for a revocation that the issuer did not confirm to reach the gate.
_PATIENCE = 10.0
#: Asks the issuer to answer once every verifier refuses.
CONFIRMED = {"Prefer": "wait=5"}


class DayUser(HttpUser):
    """A user with the addresses and the accounts of the run.

    Attributes:
        cast: the accounts; set before the first user is made.
        record: what happened in the run, if somebody wants to know.
        pace: by how much all pauses are longer than those of a day of a minute.
    """

    abstract = True
    # Locust requires one; every call here names its own.
    host = "http://127.0.0.1"
    cast: ClassVar[Cast]
    pace: ClassVar[float] = 1.0
    #: Seconds between two acts, at least and at most, before they are multiplied.
    pauses: ClassVar[tuple[float, float]] = (0.05, 0.2)
    record: ClassVar[Any] = None
    _made: ClassVar[int] = 0

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        DayUser._made += 1
        self.number = DayUser._made

    @property
    def demo(self) -> Mapping[str, str]:
        """The names and values of demo.env."""
        return self.cast.demo

    def wait_time(self) -> float:
        """Return a pause, seconds."""
        least, most = self.pauses
        # Evenly spread over the users: they must not act in step.
        place = (self.number * 0.618 + time.monotonic()) % 1.0
        return (least + (most - least) * place) * self.pace

    def post(
        self,
        path: str,
        body: Any,
        *,
        name: str = "",
        wanted: Collection[int] = (200,),
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send JSON to the issuer; return the answer's, None if the status is wrong."""
        with self.client.post(
            self.demo["ISSUER_URL"] + path,
            json=body,
            headers=headers,
            name=name or path,
            catch_response=True,
        ) as answer:
            return answer.json() if require(answer, wanted) else None

    def delete(self, path: str, token: str, name: str) -> Any:
        """Send DELETE to the issuer; return the answer's JSON as `post` does."""
        with self.client.delete(
            self.demo["ISSUER_URL"] + path,
            headers=bearer(token) | CONFIRMED,
            name=name,
            catch_response=True,
        ) as answer:
            return answer.json() if require(answer, (200,)) else None

    def token_for(
        self,
        form: Mapping[str, str],
        name: str,
        *,
        auth: tuple[str, str] | None = None,
        wanted: Collection[int] = (200,),
    ) -> str | None:
        """Send a form to the token endpoint; return the access token, None without."""
        with self.client.post(
            self.demo["ISSUER_URL"] + "/oauth2/token",
            data=form,
            auth=auth,
            name=name,
            catch_response=True,
        ) as answer:
            if not require(answer, wanted):
                return None
            token: str | None = answer.json().get("access_token")
            return token

    def log_in(self, account: Account) -> dict[str, str] | None:
        """Log in from the account's own device; return the tokens."""
        tokens: dict[str, str] | None = self.post("/auth/login", account.login_body())
        return tokens

    def call(
        self,
        token: str,
        *,
        name: str = "through the gateway",
        wanted: Collection[int] = (200,),
        path: str = "/orders",
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Ask the application; return its answer, None if it was not the wanted one."""
        with self.client.get(
            self.demo["GATEWAY_URL"] + path,
            headers=bearer(token) | dict(headers or {}),
            name=name,
            catch_response=True,
        ) as answer:
            if require(answer, wanted) and answer.status_code == 200:
                return answer.json()
            return None

    def be_refused(self, token: str, ended: Any, name: str) -> None:
        """Show a token that was revoked: the gate must refuse it.

        Args:
            token: the token.
            ended: the issuer's answer to the revocation. Where it is `confirmed`, the
                first call must be refused, else one within ten seconds.
            name: of the call in the report.
        """
        is_confirmed = bool(ended and ended.get("confirmed"))
        end = time.monotonic() + (0.0 if is_confirmed else _PATIENCE)
        while True:
            with self.client.get(
                self.demo["GATEWAY_URL"] + "/orders",
                headers=bearer(token),
                name=name,
                catch_response=True,
            ) as answer:
                if answer.status_code == 401:
                    answer.success()
                    return
                if time.monotonic() >= end:
                    how = "confirmed" if is_confirmed else "10 s old"
                    answer.failure(f"{answer.status_code} after a {how} revocation")
                    return
                answer.success()
            gevent.sleep(0.05)

    def send_raw(
        self,
        name: str,
        wanted: Collection[int],
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        method: str = "GET",
    ) -> RawAnswer | None:
        """Send a request as it is written, which no client library would do.

        Returns:
            The answer; None when the gateway ended the connection instead. An answer
            with another status than the wanted ones is a failure.
        """
        began = time.perf_counter()
        error: Exception | None = None
        answer = None
        try:
            port = port_of(self.demo["GATEWAY_URL"])
            answer = send(port, method, target, headers, timeout=10)
            if answer.status not in wanted:
                error = AssertionError(_wrong(answer.status, wanted))
        except OSError as failure:
            error = failure if isinstance(failure, TimeoutError) else None
        self.environment.events.request.fire(
            request_type=method,
            name=name,
            response_time=(time.perf_counter() - began) * 1000,
            response_length=len(answer.body) if answer else 0,
            exception=error,
            context={},
        )
        return answer

    def report(self, name: str, problem: str) -> None:
        """Count a failure that no status shows."""
        self.environment.events.request.fire(
            request_type="CHECK",
            name=name,
            response_time=0,
            response_length=0,
            exception=AssertionError(problem),
            context={},
        )


def bearer(token: str) -> dict[str, str]:
    """Return the header that shows this token."""
    return {"Authorization": f"Bearer {token}"}


def require(answer: ResponseContextManager, wanted: Collection[int]) -> bool:
    """Count another status as a failure; return whether it is a right one."""
    if answer.status_code in wanted:
        # Locust takes every 4xx for a failure.
        answer.success()
        return True
    # Locust's answer when none came.
    answer.failure(
        _wrong(answer.status_code, wanted)
        if answer.status_code
        else "no answer: does `make up` still run?"
    )
    return False


def _wrong(found: int, wanted: Collection[int]) -> str:
    return f"{found} instead of {' or '.join(map(str, wanted))}"
