"""Steps that tests of logging in share: sources, codes, factors."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import httpx
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from issuer.acts import Caller
from tests.support.issuer_harness import IssuerHarness
from tests.support.issuer_story import PASSWORD, Tokens, log_in

#: The harness's clients come from here; trusted, it may speak for others.
GATEWAY = "192.0.2.7"
HOME, OFFICE, STRANGER = "198.51.100.4", "203.0.113.9", "198.18.0.66"
#: In the same network as `HOME`.
NEXT_DOOR = "198.51.100.77"


async def post_login_from(
    issuer: IssuerHarness,
    address: str,
    username: str = "alice",
    password: str = PASSWORD,
    **members: str,
) -> httpx.Response:
    """Try to log in from this address; `members` go into the body."""
    return await issuer.client.post(
        "/auth/login",
        json={"username": username, "password": password, **members},
        headers={"X-Forwarded-For": address},
    )


async def fail_from(
    issuer: IssuerHarness, address: str, times: int, username: str = "alice"
) -> None:
    """Log in with a wrong password, which must be refused each time as such."""
    for _ in range(times):
        answer = await post_login_from(issuer, address, username, "wrong horse battery")
        assert answer.status_code == 401, answer.text


@dataclass
class Device:
    """An authenticator app that holds one secret, and its user's recovery codes."""

    secret: str
    clock_of: IssuerHarness
    recovery_codes: list[str]

    def code(self, *, steps: int = 0) -> str:
        """Return the code of now, or of so many steps later."""
        totp = TOTP(base64.b32decode(self.secret), 6, SHA1(), 30)
        return totp.generate(self.clock_of.clock.now + 30 * steps).decode()

    def next_code(self) -> str:
        """Let time pass until there is a code that was not used, and return it."""
        self.clock_of.clock.advance(30)
        return self.code()

    def wrong_code(self) -> str:
        """Return six digits that are no code of now, before or after."""
        right = {self.code(steps=steps) for steps in (-1, 0, 1)}
        return next(
            code
            for code in ("000000", "111111", "222222", "333333")
            if code not in right
        )


async def enrol(
    issuer: IssuerHarness, tokens: Tokens, password: str = PASSWORD
) -> Device:
    """Enrol a second factor and switch it on."""
    answer = await issuer.client.post(
        "/auth/second-factor/enrolment",
        json={"password": password},
        headers=tokens.bearer,
    )
    assert answer.status_code == 200, answer.text
    device = Device(answer.json()["secret"], issuer, [])
    confirmed = await issuer.client.post(
        "/auth/second-factor/confirmation",
        json={"code": device.code()},
        headers=tokens.bearer,
    )
    assert confirmed.status_code == 200, confirmed.text
    device.recovery_codes = confirmed.json()["recovery_codes"]
    return device


async def begin_login(
    issuer: IssuerHarness, username: str = "alice", password: str = PASSWORD
) -> str:
    """Log in by password, which must ask for a code; return the challenge's token."""
    answer = await issuer.client.post(
        "/auth/login", json={"username": username, "password": password}
    )
    assert answer.status_code == 403, answer.text
    assert answer.json()["code"] == "mfa_required"
    return str(answer.json()["mfa_token"])


async def end_login(issuer: IssuerHarness, mfa_token: str, code: str) -> httpx.Response:
    """Show a code for a challenge."""
    return await issuer.client.post(
        "/auth/login/second-factor", json={"mfa_token": mfa_token, "code": code}
    )


async def log_in_admin(issuer: IssuerHarness) -> Tokens:
    """Make the administrator `root` and log in as it."""
    await issuer.issuer.accounts.users.create_admin("root", PASSWORD, caller=Caller())
    return await log_in(issuer, "root")
