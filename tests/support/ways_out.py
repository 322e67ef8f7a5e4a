"""Every way of revoking: routes, kinds and filters in bulk, commands, a reuse."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from issuer.commands.main import main as issuer_main
from tests.support.issuer_harness import IssuerHarness
from tests.support.issuer_story import (
    PASSWORD,
    Tokens,
    log_in,
    post_refresh,
    read_segment,
)
from tests.support.login_story import begin_login, end_login
from tests.support.oauth_clients import ClientUnderTest
from tests.support.ways_in import (
    ALL,
    BY_CLIENT,
    BY_KEY,
    BY_PERSON,
    BY_REFRESH,
    BY_SESSION,
    Got,
)

NEW_PASSWORD: Final = "another horse battery"
_WAIT: Final = {"Prefer": "wait=30"}


@dataclass(frozen=True)
class Scene:
    """Where a revocation takes place.

    Attributes:
        issuer: of the tokens.
        admin: an administrator's tokens.
        revoker: a client that may revoke the tokens of others.
        folder: for files that commands read.
    """

    issuer: IssuerHarness
    admin: Tokens
    revoker: ClientUnderTest
    folder: Path

    async def ask(
        self, method: str, path: str, tokens: Tokens | None = None, **options: Any
    ) -> httpx.Response:
        """Send a request, as the administrator unless other tokens are given."""
        headers = (self.admin if tokens is None else tokens).bearer | _WAIT
        headers |= options.pop("headers", {})
        return await self.issuer.client.request(
            method, path, headers=headers, **options
        )

    async def change(self, path: str, body: Mapping[str, object]) -> httpx.Response:
        """Change the object at this path, in any version."""
        method = "PUT" if path.startswith("/roles/") else "PATCH"
        tag = {"If-Match": (await self.ask("GET", path)).headers["ETag"]}
        return await self.ask(method, path, headers=tag, json=body)

    async def command(self, *words: str) -> None:
        """Run a command of the issuer, which must succeed."""
        # In a thread, with an event loop of its own, as in a process of its own.
        assert await asyncio.to_thread(issuer_main, list(words)) == 0

    async def log_in_again(self, got: Got) -> Tokens:
        """Open another session of the same user."""
        holder = got.holder
        if holder.device is None:
            return await log_in(self.issuer, holder.username)
        code = holder.device.recovery_codes.pop()
        for _ in range(4):
            challenge = await begin_login(self.issuer, holder.username)
            answer = await end_login(self.issuer, challenge, code)
            if answer.status_code == 200:
                break
            # Another login of this user was first: it ends all challenges, no code is
            # spent.
        assert answer.status_code == 200, answer.text
        return Tokens(answer.json()["access_token"], answer.json()["refresh_token"])


#: Revokes, and returns the answer; None: a command did it.
_Act = Callable[[Scene, Got], Awaitable[httpx.Response | None]]


@dataclass(frozen=True)
class WayOut:
    """A way of revoking.

    Attributes:
        name: of the way.
        act: does it.
        dead: ways in with tokens that are dead after it.
        shut: of these the ones with a credential that gives no further token either.
        is_wide: everybody's tokens die of it.
    """

    name: str
    act: _Act
    dead: frozenset[str]
    shut: frozenset[str] = frozenset()
    is_wide: bool = False

    @property
    def is_command(self) -> bool:
        """Whether a command does it, by the machine's clock."""
        return self.name.startswith("command:")


def _route(
    method: str, path: str, *, is_own: bool = False, **json_body: object
) -> _Act:
    """Return the request for this path, with `{sid}`, `{user}`, ... filled in."""

    async def act(scene: Scene, got: Got) -> httpx.Response:
        names = {**_names(got), "kid": read_segment(got.tokens.access_token, 0)["kid"]}
        body = {"json": json_body} if json_body else {}
        tokens = got.tokens if is_own else None
        return await scene.ask(method, path.format(**names), tokens, **body)

    return act


def _names(got: Got) -> dict[str, Any]:
    holder, claims = got.holder, got.claims
    return {
        "sid": claims["sid"],
        "jti": claims["jti"],
        "user": holder.user_id,
        "username": holder.username,
        "role": holder.role,
        "client": holder.client.id,
        "key": holder.key_id,
        "kid": read_segment(got.tokens.access_token, 0)["kid"],
        "begun_at": claims["auth_time"],
    }


def _bulk(kind: str, name: str, **more: object) -> _Act:
    async def act(scene: Scene, got: Got) -> httpx.Response:
        item = {"kind": kind, "key": _names(got)[name], **more}
        return await scene.ask("POST", "/revocations/bulk", json={"items": [item]})

    return act


def _matching(**conditions: object) -> _Act:
    async def act(scene: Scene, got: Got) -> httpx.Response:
        names = _names(got)
        filled = {
            name: names[value[1:-1]] if str(value).startswith("{") else value
            for name, value in conditions.items()
        }
        return await scene.ask("POST", "/revocations/bulk", json={"filter": filled})

    return act


def _command(*words: str) -> _Act:
    async def act(scene: Scene, got: Got) -> None:
        await scene.command(*(word.format(**_names(got)) for word in words))

    return act


def _file(kind: str, name: str) -> _Act:
    async def act(scene: Scene, got: Got) -> None:
        row = {"kind": kind, "key": _names(got)[name]}
        path = scene.folder / "rows.jsonl"
        path.write_text(json.dumps(row) + "\n")
        await scene.command("revoke-many", "--file", str(path))

    return act


def _oauth(what: str, before: str = "", after: str = "") -> _Act:
    async def act(scene: Scene, got: Got) -> httpx.Response:
        strings = {
            "access token": got.tokens.access_token,
            "refresh token": got.tokens.refresh_token,
            "key": got.holder.key,
        }
        token = f"{before}{strings[what]}{after}"
        by = got.holder.client if got.way in BY_CLIENT else scene.revoker
        return await by.post("/oauth2/revoke", headers=_WAIT, token=token)

    return act


async def _log_out_by_refresh(scene: Scene, got: Got) -> httpx.Response:
    body = {"refresh_token": got.tokens.refresh_token}
    return await scene.issuer.client.post("/auth/logout", json=body, headers=_WAIT)


async def _end_others(scene: Scene, got: Got) -> httpx.Response:
    other = await scene.log_in_again(got)
    return await scene.ask("DELETE", "/auth/sessions", other)


async def _log_out_everywhere_elsewhere(scene: Scene, got: Got) -> httpx.Response:
    other = await scene.log_in_again(got)
    return await scene.ask("POST", "/auth/logout-all", other)


async def _end_from_elsewhere(scene: Scene, got: Got) -> httpx.Response:
    other = await scene.log_in_again(got)
    return await scene.ask("DELETE", f"/auth/sessions/{got.claims['sid']}", other)


async def _end_own_key(scene: Scene, got: Got) -> httpx.Response:
    other = await scene.log_in_again(got)
    return await scene.ask("DELETE", f"/users/me/keys/{got.holder.key_id}", other)


async def _change_password(scene: Scene, got: Got) -> httpx.Response:
    other = await scene.log_in_again(got)
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    return await scene.ask("POST", "/auth/password", other, json=body)


async def _change_password_only(scene: Scene, got: Got) -> httpx.Response:
    other = await scene.log_in_again(got)
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    return await scene.ask(
        "POST", "/auth/password", other, json=body | {"keep_keys": True}
    )


async def _revoke_as_finder(scene: Scene, got: Got) -> httpx.Response:
    """The finder of a key, or of its token, needs no client (RFC 7009, 2.1)."""
    return await scene.issuer.client.post(
        "/oauth2/revoke", headers=_WAIT, data={"token": got.tokens.access_token}
    )


async def _revoke_key_as_finder(scene: Scene, got: Got) -> httpx.Response:
    return await scene.issuer.client.post(
        "/oauth2/revoke", headers=_WAIT, data={"token": got.holder.key}
    )


async def _reset_password(scene: Scene, got: Got) -> httpx.Response:
    made = await scene.ask("POST", f"/users/{got.holder.user_id}/password-reset")
    body = {"reset_token": made.json()["reset_token"], "new_password": NEW_PASSWORD}
    return await scene.issuer.client.post(
        "/auth/password-reset", json=body, headers=_WAIT
    )


async def _disable_and_enable(scene: Scene, got: Got) -> httpx.Response:
    path = f"/users/{got.holder.user_id}"
    answer = await scene.ask("POST", f"{path}/disable")
    assert (await scene.ask("POST", f"{path}/enable")).status_code == 200
    return answer


async def _rename(scene: Scene, got: Got) -> httpx.Response:
    body = {"username": f"new-{got.holder.username}"}
    return await scene.change(f"/users/{got.holder.user_id}", body)


async def _take_role(scene: Scene, got: Got) -> httpx.Response:
    return await scene.change(f"/users/{got.holder.user_id}", {"roles": []})


async def _empty_role(scene: Scene, got: Got) -> httpx.Response:
    body = {"scopes": [], "description": ""}
    return await scene.change(f"/roles/{got.holder.role}", body)


async def _narrow_client(scene: Scene, got: Got) -> httpx.Response:
    return await scene.change(f"/clients/{got.holder.client.id}", {"scopes": []})


async def _use_twice(scene: Scene, got: Got) -> None:
    """A refresh token that was spent long ago comes back: somebody copied it."""
    await post_refresh(scene.issuer, got.tokens.refresh_token)
    scene.issuer.clock.advance(scene.issuer.base.settings.refresh_grace + 1)
    answer = await post_refresh(scene.issuer, got.tokens.refresh_token)
    assert answer.status_code == 401, answer.text


_SESSION_ENDS: Final = (BY_SESSION, BY_REFRESH)
_ALL_OF_A_PERSON: Final = (BY_PERSON, BY_REFRESH | BY_KEY)
_NEW_PASSWORD: Final = (BY_PERSON, BY_PERSON)
_CLIENT_ENDS: Final = (BY_CLIENT, BY_CLIENT)
_KEY_ENDS: Final = (BY_KEY, BY_KEY)
_SID_ENDS: Final = (ALL, BY_REFRESH | BY_KEY)

WAYS_OUT: Final[tuple[WayOut, ...]] = (
    WayOut("log out", _route("POST", "/auth/logout", is_own=True), *_SESSION_ENDS),
    WayOut("log out by refresh token", _log_out_by_refresh, *_SESSION_ENDS),
    WayOut(
        "log out everywhere",
        _route("POST", "/auth/logout-all", is_own=True),
        *_SESSION_ENDS,
    ),
    WayOut(
        "log out everywhere, elsewhere",
        _log_out_everywhere_elsewhere,
        *_ALL_OF_A_PERSON,
    ),
    WayOut("end a session", _end_from_elsewhere, *_SESSION_ENDS),
    WayOut("end other sessions", _end_others, *_SESSION_ENDS),
    WayOut(
        "end a user's sessions",
        _route("DELETE", "/users/{user}/sessions"),
        *_ALL_OF_A_PERSON,
    ),
    WayOut(
        "end a user's session",
        _route("DELETE", "/users/{user}/sessions/{sid}"),
        *_SESSION_ENDS,
    ),
    WayOut("reuse", _use_twice, *_SESSION_ENDS),
    WayOut("end own key", _end_own_key, *_KEY_ENDS),
    WayOut(
        "end a user's key",
        _route("DELETE", "/users/{user}/keys/{key}"),
        *_KEY_ENDS,
    ),
    WayOut("change the password", _change_password, *_NEW_PASSWORD),
    WayOut(
        "change the password, keep keys",
        _change_password_only,
        BY_PERSON,
        BY_SESSION,
    ),
    WayOut("reset the password", _reset_password, *_NEW_PASSWORD),
    WayOut("disable", _route("POST", "/users/{user}/disable"), BY_PERSON, BY_PERSON),
    WayOut("disable and enable", _disable_and_enable, *_ALL_OF_A_PERSON),
    WayOut("delete the user", _route("DELETE", "/users/{user}"), BY_PERSON, BY_PERSON),
    WayOut("rename", _rename, BY_PERSON),
    WayOut("take the role", _take_role, BY_PERSON),
    WayOut("take the role's scope", _empty_role, BY_PERSON),
    WayOut(
        "disable the client", _route("POST", "/clients/{client}/disable"), *_CLIENT_ENDS
    ),
    WayOut("delete the client", _route("DELETE", "/clients/{client}"), *_CLIENT_ENDS),
    WayOut(
        "revoke a client's tokens",
        _route("DELETE", "/clients/{client}/tokens"),
        BY_CLIENT,
    ),
    WayOut("narrow the client", _narrow_client, BY_CLIENT),
    WayOut("revoke the access token", _oauth("access token"), ALL),
    WayOut("revoke it with a line end", _oauth("access token", after="\n"), ALL),
    WayOut("revoke it with Bearer", _oauth("access token", before="Bearer "), ALL),
    WayOut("revoke the refresh token", _oauth("refresh token"), *_SESSION_ENDS),
    WayOut(
        "revoke it with blanks",
        _oauth("refresh token", before=" ", after=" \r\n"),
        *_SESSION_ENDS,
    ),
    WayOut("revoke the key", _oauth("key"), *_KEY_ENDS),
    WayOut("revoke the key without a client", _revoke_key_as_finder, *_KEY_ENDS),
    WayOut("revoke its token without a client", _revoke_as_finder, BY_KEY),
    WayOut("bulk jti", _bulk("jti", "jti"), ALL),
    WayOut("bulk jti with an old exp", _bulk("jti", "jti", exp=1), ALL),
    WayOut("bulk sid", _bulk("sid", "sid"), *_SID_ENDS),
    WayOut("bulk user", _bulk("user", "user"), *_ALL_OF_A_PERSON),
    WayOut("bulk username", _bulk("username", "username"), *_ALL_OF_A_PERSON),
    WayOut("bulk client", _bulk("client", "client"), BY_CLIENT),
    WayOut("bulk by role", _matching(role="{role}"), *_ALL_OF_A_PERSON),
    WayOut(
        "bulk by role and address",
        _matching(role="{role}", address="192.0.2.0/24"),
        *_ALL_OF_A_PERSON,
    ),
    WayOut(
        "bulk by role and time",
        _matching(role="{role}", started_since="{begun_at}"),
        *_ALL_OF_A_PERSON,
    ),
    WayOut(
        "bulk by client",
        _matching(client_id="gatehouse"),
        *_SESSION_ENDS,
        is_wide=True,
    ),
    WayOut(
        "bulk by the client of keys",
        _matching(client_id="gatehouse-key"),
        *_KEY_ENDS,
        is_wide=True,
    ),
    WayOut("bulk kid", _bulk("kid", "kid"), ALL, is_wide=True),
    WayOut("withdraw the key", _route("POST", "/keys/{kid}/revoke"), ALL, is_wide=True),
    WayOut(
        "command: user", _command("revoke", "--user", "{username}"), *_ALL_OF_A_PERSON
    ),
    WayOut("command: sid", _command("revoke", "--sid", "{sid}"), *_SID_ENDS),
    WayOut("command: jti", _command("revoke", "--jti", "{jti}"), ALL),
    WayOut("command: client", _command("revoke", "--client", "{client}"), BY_CLIENT),
    WayOut("command: kid", _command("revoke", "--kid", "{kid}"), ALL, is_wide=True),
    WayOut("command: many by sid", _file("sid", "sid"), *_SID_ENDS),
    WayOut("command: many by jti", _file("jti", "jti"), ALL),
    WayOut("command: many by user", _file("user", "user"), *_ALL_OF_A_PERSON),
    WayOut(
        "command: many by username", _file("username", "username"), *_ALL_OF_A_PERSON
    ),
    WayOut("command: many by client", _file("client", "client"), BY_CLIENT),
    WayOut("command: many by kid", _file("kid", "kid"), ALL, is_wide=True),
    WayOut(
        "command: many by role",
        _command("revoke-many", "--role", "{role}", "--yes"),
        *_ALL_OF_A_PERSON,
    ),
)
