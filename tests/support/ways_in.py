"""Every way of getting an access token, as a user, a script or a client does it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import httpx

from tests.support.issuer_harness import IssuerHarness
from tests.support.issuer_story import PASSWORD, Tokens, log_in
from tests.support.login_story import Device, end_login, enrol
from tests.support.oauth_clients import ClientUnderTest, add_role, create_client
from tests.support.personal_keys import exchange, make_key

SCOPE: Final = "orders:read"
_KEY_LIFETIME: Final = 86_400


@dataclass(frozen=True)
class Holder:
    """The holders of tokens: a person with a role, a key and a client of their own.

    Attributes:
        user_id: the account's id.
        username: its name.
        role: the only role it has; no other user has it.
        client: a client for this test only.
        device: the second factor, where the account has one.
        key_id: of a personal key.
        key: that key.
    """

    user_id: str
    username: str
    role: str
    client: ClientUnderTest
    device: Device | None
    key_id: str
    key: str


@dataclass(frozen=True)
class Got:
    """A token, with its holder and its way in.

    Attributes:
        way: its name in `WAYS_IN`.
        holder: the user or client with the token.
        tokens: the access token, and the refresh token where there is one.
    """

    way: str
    holder: Holder
    tokens: Tokens

    @property
    def claims(self) -> dict[str, Any]:
        """The access token's claims."""
        return self.tokens.claims


#: Asks for a token and returns the answer of any status.
_Ask = Callable[[IssuerHarness, Got], Awaitable[httpx.Response]]


async def make_holder(
    issuer: IssuerHarness, name: str, *, with_device: bool = False
) -> Holder:
    """Make an account with all that tokens are got with.

    Args:
        issuer: where.
        name: of the account, different each time.
        with_device: also enrol a second factor.
    """
    role = f"role-{name}"
    await add_role(issuer, role, SCOPE)
    user = await issuer.create_user(name, PASSWORD, [role])
    client = await create_client(issuer, [SCOPE])
    tokens = await log_in(issuer, name)
    key = await make_key(issuer, tokens, scopes=[SCOPE], expires_in=_KEY_LIFETIME)
    device = await enrol(issuer, tokens) if with_device else None
    return Holder(user.id, name, role, client, device, key["id"], key["key"])


async def _log_in(issuer: IssuerHarness, got: Got) -> httpx.Response:
    body = {"username": got.holder.username, "password": PASSWORD}
    return await issuer.client.post("/auth/login", json=body)


async def _log_in_with(issuer: IssuerHarness, got: Got, code: str) -> httpx.Response:
    answer = await _log_in(issuer, got)
    if answer.status_code != 403:
        return answer
    return await end_login(issuer, str(answer.json()["mfa_token"]), code)


async def _log_in_with_code(issuer: IssuerHarness, got: Got) -> httpx.Response:
    assert got.holder.device is not None
    return await _log_in_with(issuer, got, got.holder.device.code())


async def _log_in_with_recovery_code(issuer: IssuerHarness, got: Got) -> httpx.Response:
    assert got.holder.device is not None
    return await _log_in_with(issuer, got, got.holder.device.recovery_codes.pop())


async def _give_password(issuer: IssuerHarness, got: Got) -> httpx.Response:
    form = {"username": got.holder.username, "password": PASSWORD}
    return await issuer.client.post(
        "/oauth2/token",
        data={"grant_type": "password", "client_id": "gatehouse", **form},
    )


async def _refresh(issuer: IssuerHarness, got: Got) -> httpx.Response:
    body = {"refresh_token": got.tokens.refresh_token}
    return await issuer.client.post("/auth/refresh", json=body)


async def _refresh_as_client(issuer: IssuerHarness, got: Got) -> httpx.Response:
    form = {"grant_type": "refresh_token", "client_id": "gatehouse"}
    return await issuer.client.post(
        "/oauth2/token", data={**form, "refresh_token": got.tokens.refresh_token}
    )


async def _grant(_issuer: IssuerHarness, got: Got) -> httpx.Response:
    client = got.holder.client
    return await client.post("/oauth2/token", grant_type="client_credentials")


async def _exchange(issuer: IssuerHarness, got: Got) -> httpx.Response:
    return await exchange(issuer, got.holder.key)


WAYS_IN: Final[dict[str, _Ask]] = {
    "login": _log_in,
    "second factor": _log_in_with_code,
    "recovery code": _log_in_with_recovery_code,
    "password grant": _give_password,
    "refresh": _refresh,
    "refresh grant": _refresh_as_client,
    "client grant": _grant,
    "key exchange": _exchange,
}
BY_REFRESH: Final = frozenset({"refresh", "refresh grant"})
BY_PASSWORD: Final = frozenset(
    {"login", "second factor", "recovery code", "password grant"}
)
BY_CODE: Final = frozenset({"second factor", "recovery code"})
BY_SESSION: Final = BY_REFRESH | BY_PASSWORD
BY_KEY: Final = frozenset({"key exchange"})
BY_CLIENT: Final = frozenset({"client grant"})
BY_PERSON: Final = BY_SESSION | BY_KEY
ALL: Final = BY_PERSON | BY_CLIENT


async def get(issuer: IssuerHarness, way: str, holder: Holder) -> Got:
    """Get a token, which must succeed."""
    got = Got(way, holder, Tokens("", ""))
    if way in BY_REFRESH:
        got = replace(got, tokens=await log_in(issuer, holder.username))
    return renew(got, await WAYS_IN[way](issuer, got))


def renew(got: Got, answer: httpx.Response) -> Got:
    """Return the tokens of an answer, which must have some."""
    assert answer.status_code == 200, answer.text
    body = answer.json()
    tokens = Tokens(body["access_token"], body.get("refresh_token", ""))
    return replace(got, tokens=tokens)
