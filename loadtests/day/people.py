"""People, programs and administrators at work."""

from __future__ import annotations

from locust import task

from loadtests.day.calls import CONFIRMED, DayUser, bearer
from loadtests.day.cast import SCOPE, CastError, log_in_administrator

_CALLS_PER_SESSION = 12
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_PERSONAL_KEY = "urn:gatehouse:token-type:personal-key"


class Person(DayUser):
    """Logs in, browses, refreshes, logs out, and is refused from then on."""

    weight = 12

    def on_start(self) -> None:
        self.tokens: dict[str, str] | None = None

    def on_stop(self) -> None:
        if self.tokens:
            self.log_out(self.tokens)

    @task
    def work_a_session(self) -> None:
        """Browse, refresh half-way, and log out."""
        account = self.cast.person(self.number)
        self.tokens = self.log_in(account)
        if not self.tokens:
            return  # counted as a failure; tried again after a wait
        for number in range(_CALLS_PER_SESSION):
            if number == _CALLS_PER_SESSION // 2:
                body = {"refresh_token": self.tokens["refresh_token"]}
                self.tokens = self.post("/auth/refresh", body) or self.tokens
            self.call(self.tokens["access_token"])
            self.wait()
        self.log_out(self.tokens)

    def log_out(self, tokens: dict[str, str]) -> None:
        """End the session, and see that gate and issuer refuse it."""
        # First, because the run may end at any moment and no user logs out twice.
        self.tokens = None
        token = tokens["access_token"]
        headers = bearer(token) | CONFIRMED
        ended = self.post("/auth/logout", None, headers=headers)
        if ended is None:
            return
        self.be_refused(token, ended, "through the gateway, logged out")
        body = {"refresh_token": tokens["refresh_token"]}
        self.post("/auth/refresh", body, name="/auth/refresh, ended", wanted=(401,))


class Program(DayUser):
    """A program with a client's id and secret, which gets a token for many calls."""

    weight = 3

    @task
    def work(self) -> None:
        """Get a token and use it."""
        demo = self.demo
        if "CLIENT_ID" not in demo:
            return
        token = self.token_for(
            {"grant_type": "client_credentials"},
            "/oauth2/token, client",
            auth=(demo["CLIENT_ID"], demo["CLIENT_SECRET"]),
        )
        for _ in range(20):
            if token:
                self.call(token, name="through the gateway, program")
            self.wait()


class Script(DayUser):
    """A script with a personal key, which its owner ends after some use."""

    weight = 2
    pauses = (0.2, 0.6)

    @task
    def work(self) -> None:
        """Make a key, exchange it, use the tokens, and end it."""
        account = self.cast.person(self.number)
        tokens = self.log_in(account)
        if not tokens:
            return
        owner = bearer(tokens["access_token"])
        wish = {
            "name": f"script {self.number}",
            "scopes": [SCOPE],
            "expires_in": 300,
            "password": account.password,
        }
        made = self.post("/users/me/keys", wish, wanted=(201,), headers=owner)
        if not made:
            return
        form = {
            "grant_type": _EXCHANGE,
            "subject_token_type": _PERSONAL_KEY,
            "subject_token": made["key"],
        }
        token = None
        for _ in range(5):
            token = self.token_for(form, "/oauth2/token, personal key") or token
            if token:
                self.call(token, name="through the gateway, script")
            self.wait()
        path = f"/users/me/keys/{made['id']}"
        ended = self.delete(path, tokens["access_token"], "/users/me/keys/ID")
        if ended and token:
            self.be_refused(token, ended, "through the gateway, key ended")
        name = "/oauth2/token, ended key"
        self.token_for(form, name, wanted=(400,))
        headers = bearer(tokens["access_token"]) | CONFIRMED
        self.post("/auth/logout", None, headers=headers)


class Administrator(DayUser):
    """Logs other people out everywhere, and reads the audit log."""

    weight = 1
    pauses = (0.5, 1.5)

    def on_start(self) -> None:
        self.token = ""

    @task
    def log_a_user_out(self) -> None:
        """End all sessions of a user, whose token must be refused at once."""
        target = self.cast.target("locked")
        tokens = self.log_in(target)
        if not tokens:
            return
        self.call(tokens["access_token"])
        try:
            admin = log_in_administrator(self.demo)
        except (OSError, CastError) as error:
            self.report("/auth/login, administrator", str(error))
            return
        path = f"/users/{target.user_id}/sessions"
        ended = self.delete(path, admin, "/users/ID/sessions")
        if ended:
            name = "through the gateway, revoked"
            self.be_refused(tokens["access_token"], ended, name)
        self._read_audit_log(admin)
        self.post("/auth/logout", None, headers=bearer(admin))

    def _read_audit_log(self, admin: str) -> None:
        with self.client.get(
            self.demo["ISSUER_URL"] + "/audit?limit=20",
            headers=bearer(admin),
            name="/audit",
            catch_response=True,
        ) as answer:
            if answer.status_code == 200:
                answer.success()
            else:
                answer.failure(f"{answer.status_code} instead of 200")
