"""Requests to token endpoints, as a client of the provider makes them (RFC 6749)."""

from __future__ import annotations

from typing import Final

import httpx

#: The client that every provider of these tests has, and its secret there.
CLIENT_ID: Final = "shop"
CLIENT_SECRET: Final = "shop-secret"
#: In the `aud` of their access tokens.
AUDIENCE: Final = "orders"
SCOPE: Final = "orders:read"
#: Seconds; ends only what hangs.
PATIENCE: Final = 60.0


def fetch_token(url: str, **form: str) -> str:
    """Return the access token that a token endpoint gives.

    Args:
        url: the endpoint's.
        form: the parameters of the grant.

    Raises:
        AssertionError: the provider refused; with its answer.
    """
    auth = httpx.BasicAuth(CLIENT_ID, CLIENT_SECRET)
    answer = httpx.post(url, data=form, auth=auth, timeout=PATIENCE, trust_env=False)
    assert answer.status_code == 200, f"{url}: {answer.status_code} {answer.text}"
    return str(answer.json()["access_token"])
