"""Requests to token endpoints, as a client of the provider makes them (RFC 6749)."""

from __future__ import annotations

from typing import Any, Final

import httpx

#: The client that every provider of these tests has, and its secret there.
CLIENT_ID: Final = "shop"
CLIENT_SECRET: Final = "shop-secret"
#: In the `aud` of their access tokens.
AUDIENCE: Final = "orders"
SCOPE: Final = "orders:read"
#: Seconds; ends only what hangs.
PATIENCE: Final = 60.0


def fetch_tokens(url: str, **form: str) -> dict[str, Any]:
    """Return the answer of a token endpoint to the client's request.

    Args:
        url: the endpoint's.
        form: the parameters of the grant.

    Raises:
        AssertionError: the provider refused; with its answer.
    """
    client = httpx.BasicAuth(CLIENT_ID, CLIENT_SECRET)
    answer = httpx.post(url, data=form, auth=client, timeout=PATIENCE, trust_env=False)
    assert answer.status_code == 200, f"{url}: {answer.status_code} {answer.text}"
    tokens: dict[str, Any] = answer.json()
    return tokens
