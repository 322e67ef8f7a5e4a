"""The accounts of a day: an administrator makes them before, and removes them after."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import gevent
from gevent.lock import BoundedSemaphore

from loadtests.day.demo import port_of
from loadtests.support.raw_http import RawAnswer, bearer, post_json, send

#: Shared by the users that act as people; each account may open 1,200 sessions an hour.
PEOPLE = 10
SCOPE = "orders:read"


class Account(NamedTuple):
    """An account that can log in.

    Attributes:
        device: the device token of a first login: others' failures do not slow it.
    """

    user_id: str
    username: str
    password: str
    device: str

    def login_body(self) -> dict[str, str]:
        """Return what a login from its device sends."""
        return {
            "username": self.username,
            "password": self.password,
            "device_token": self.device,
        }


class CastError(Exception):
    """The accounts could not be made; the message has the call and its answer."""


class Cast:
    """The accounts of one run, in a role of their own; each is made when it is needed.

    Args:
        demo: names and values of demo.env.

    Raises:
        CastError: the administrator's login or the role was refused.
    """

    def __init__(self, demo: Mapping[str, str]) -> None:
        self.demo = demo
        self._run = secrets.token_hex(4)
        self._role = f"load-{self._run}"
        self._made: dict[str, Account] = {}
        self._lock = BoundedSemaphore()
        role = {"name": self._role, "scopes": [SCOPE]}
        _post(demo, "/roles", role, 201, bearer(log_in_administrator(demo)))

    def person(self, number: int) -> Account:
        """Return the account of a person; some have the same one.

        Raises:
            CastError: the issuer does not make it.
        """
        return self._find(f"person{number % PEOPLE}")

    def target(self, purpose: str) -> Account:
        """Return the account for a purpose that no person's account should have.

        Raises:
            CastError: the issuer does not make it.
        """
        return self._find(purpose)

    def _find(self, name: str) -> Account:
        # In a greenlet of its own: Locust may end the user that asks half-way, and the
        # next one would find the name taken.
        account: Account = gevent.spawn(self._find_alone, name).get()
        return account

    def _find_alone(self, name: str) -> Account:
        with self._lock:
            if name not in self._made:
                self._made[name] = self._make(f"{name}-{self._run}")
            return self._made[name]

    def _make(self, username: str) -> Account:
        """Make an account, and log it in once, for its device token."""
        password = secrets.token_urlsafe(24)
        wish = {"username": username, "password": password, "roles": [self._role]}
        admin = bearer(log_in_administrator(self.demo))
        user_id: str = _post(self.demo, "/users", wish, 201, admin).json()["id"]
        login = {"username": username, "password": password}
        answer = _post(self.demo, "/auth/login", login, 200).json()
        return Account(user_id, username, password, answer["device_token"])

    def remove(self) -> None:
        """Delete the accounts and the role, as far as the issuer still answers."""
        with suppress(OSError, CastError):
            admin = bearer(log_in_administrator(self.demo))
            port = port_of(self.demo["ISSUER_URL"])
            for account in self._made.values():
                send(port, "DELETE", f"/users/{account.user_id}", [admin])
            send(port, "DELETE", f"/roles/{self._role}", [admin])


def log_in_administrator(demo: Mapping[str, str]) -> str:
    """Return an access token that may administer.

    Raises:
        CastError: the login was refused.
    """
    account = {"username": demo["ADMIN_USERNAME"], "password": demo["ADMIN_PASSWORD"]}
    answer = _post(demo, "/auth/login", account, 200)
    token: str = answer.json()["access_token"]
    return token


def _post(
    demo: Mapping[str, str],
    path: str,
    body: Any,
    wanted: int,
    *headers: tuple[str, str],
) -> RawAnswer:
    answer = post_json(port_of(demo["ISSUER_URL"]), path, body, headers)
    if answer.status != wanted:
        raise CastError(f"{path}: {answer.status} instead of {wanted}")
    return answer
