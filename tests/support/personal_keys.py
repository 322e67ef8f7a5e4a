"""Personal keys in tests: made, exchanged and listed, each in one line."""

from __future__ import annotations

from typing import Any

import httpx

from tests.support.issuer_harness import IssuerHarness
from tests.support.issuer_story import PASSWORD, Tokens
from tests.support.oauth_clients import is_refused

EXCHANGE = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    "subject_token_type": "urn:gatehouse:token-type:personal-key",
}
WISH = {
    "name": "nightly export",
    "scopes": ["orders:read"],
    "expires_in": 86_400,
    "password": PASSWORD,
}


async def post_key(
    issuer: IssuerHarness, tokens: Tokens, **changes: object
) -> httpx.Response:
    """Try to make a key."""
    return await issuer.client.post(
        "/users/me/keys", json=WISH | changes, headers=tokens.bearer
    )


async def make_key(
    issuer: IssuerHarness, tokens: Tokens, **changes: object
) -> dict[str, Any]:
    """Make a key, which must succeed, and return the answer."""
    answer = await post_key(issuer, tokens, **changes)
    assert answer.status_code == 201, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    return dict(answer.json())


async def exchange(issuer: IssuerHarness, key: str, **more: str) -> httpx.Response:
    """Try to exchange a key."""
    form = {**EXCHANGE, "subject_token": key, **more}
    return await issuer.client.post("/oauth2/token", data=form)


async def get_token(issuer: IssuerHarness, key: str, **more: str) -> Tokens:
    """Exchange a key, which must succeed."""
    answer = await exchange(issuer, key, **more)
    assert answer.status_code == 200, answer.text
    return Tokens(answer.json()["access_token"], "")


async def list_keys(issuer: IssuerHarness, tokens: Tokens) -> list[dict[str, Any]]:
    """Return one's own keys."""
    answer = await issuer.client.get("/users/me/keys", headers=tokens.bearer)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["keys"])


def is_dead(answer: httpx.Response) -> bool:
    """RFC 8693, section 2.2.2, has this word for a subject token that does not
    count.
    """
    return is_refused(answer, 400, "invalid_request")
