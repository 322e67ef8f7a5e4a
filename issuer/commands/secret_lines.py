"""`python -m issuer generate-secrets`: lines of a settings file with fresh secrets."""

from __future__ import annotations

import secrets
from typing import Final

from issuer.settings.key_ring import KEY_BYTES
from shared.jose import base64url

_RINGS: Final = (
    "ISSUER_KEY_ENCRYPTION_KEYS",
    "ISSUER_PASSWORD_PEPPERS",
    "ISSUER_REFRESH_KEYS",
)


def make_secret_lines() -> list[str]:
    """Return `.env` lines with fresh secrets for an issuer and its verifiers."""
    feed_token = secrets.token_urlsafe(32)
    keys = [
        f"{name}=k1:{base64url.encode(secrets.token_bytes(KEY_BYTES))}"
        for name in _RINGS
    ]
    return [
        f"ISSUER_FEED_TOKEN={feed_token}",
        *keys,
        f"VERIFIER_FEED_TOKEN={feed_token}",
    ]
