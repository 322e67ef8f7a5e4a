"""Clients of the OAuth endpoints in tests, each in one line."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

import httpx

from issuer.acts import Caller
from issuer.storage.tables.roles import Role
from tests.support.issuer_harness import IssuerHarness
from tests.support.issuer_story import PASSWORD, Tokens, log_in


class ClientUnderTest:
    """A client and its secret, which it shows with HTTP Basic."""

    def __init__(self, issuer: IssuerHarness, client_id: str, secret: str) -> None:
        self.issuer = issuer
        self.id = client_id
        self.secret = secret

    async def post(
        self, path: str, headers: Mapping[str, str] | None = None, **form: str
    ) -> httpx.Response:
        """Send a form with the credentials."""
        text = base64.b64encode(f"{self.id}:{self.secret}".encode()).decode()
        return await self.issuer.client.post(
            path,
            data=form,
            headers={"Authorization": f"Basic {text}", **(headers or {})},
        )

    async def get_token(self, **form: str) -> str:
        """Return an access token of the client's own."""
        answer = await self.post(
            "/oauth2/token", grant_type="client_credentials", **form
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    async def introspect(self, token: str) -> dict[str, object]:
        """Return the client's introspection of a token."""
        answer = await self.post("/oauth2/introspect", token=token)
        assert answer.status_code == 200, answer.text
        assert answer.headers["Cache-Control"] == "no-store"
        return dict(answer.json())


async def create_client(
    issuer: IssuerHarness, scopes: Sequence[str] = (), audiences: Sequence[str] = ()
) -> ClientUnderTest:
    """Make a client."""
    made = await issuer.issuer.clients.clients.create(
        "a client", scopes, audiences, actor="system", caller=Caller()
    )
    return ClientUnderTest(issuer, made.client_id, made.secret)


def is_refused(answer: httpx.Response, status: int, error: str) -> bool:
    """Whether an answer is this error of RFC 6749, section 5.2."""
    return (answer.status_code, answer.json()["error"]) == (status, error)


async def log_in_admin(issuer: IssuerHarness) -> Tokens:
    """Make an administrator and log in as such."""
    await issuer.issuer.accounts.users.create_admin("root", PASSWORD, caller=Caller())
    return await log_in(issuer, "root")


async def add_role(issuer: IssuerHarness, name: str, scopes: str) -> None:
    """Make a role that grants these scopes, space-delimited."""
    async with issuer.database.write() as db:
        db.add(Role(name=name, scopes=scopes, created_at=0))
