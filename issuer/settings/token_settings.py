"""Settings of tokens, sessions and signing keys."""

from __future__ import annotations

from pydantic import Field

from shared.claims import LONGEST_ACCESS_TTL
from shared.configuration.settings import ProgramSettings


class TokenSettings(ProgramSettings):
    """Lifetimes and numbers of tokens, sessions and signing keys."""

    access_ttl: int = Field(
        default=600,
        ge=30,
        le=LONGEST_ACCESS_TTL,
        description="Lifetime of an access token, seconds.",
    )
    refresh_ttl: int = Field(
        default=30 * 86_400,
        ge=600,
        le=366 * 86_400,
        description="Absolute lifetime of a session and its refresh tokens, seconds.",
    )
    refresh_idle_ttl: int = Field(
        default=7 * 86_400,
        ge=300,
        le=366 * 86_400,
        description="A session not used for this long ends, seconds.",
    )
    max_sessions_per_user: int = Field(
        default=100,
        ge=0,
        le=10_000,
        description="Living sessions a user may have; a login past that ends the oldest. "
        "0: no limit.",
    )
    session_limit: int = Field(
        default=1_200,
        ge=0,
        le=1_000_000,
        description="Sessions that one user may open in 3,600 seconds, each by a right "
        "password; more get 429. 0: no limit.",
    )
    refresh_limit: int = Field(
        default=600,
        ge=0,
        le=60_000,
        description="Refreshes of one session in 60 seconds; more get 429. Repeats within "
        "ISSUER_REFRESH_GRACE are free. 0: no limit.",
    )
    session_retention: int = Field(
        default=30 * 86_400,
        ge=86_400,
        le=3_660 * 86_400,
        description="Ended sessions and personal keys are deleted after this long, seconds.",
    )
    refresh_grace: int = Field(
        default=10,
        ge=0,
        le=60,
        description="Seconds in which a client that lost the answer gets the same "
        "successor again.",
    )
    rsa_bits: int = Field(
        default=2048, ge=2048, le=4096, description="Size of new signing keys, bits."
    )
    key_rotation_interval: int = Field(
        default=0,
        ge=0,
        description="Seconds a signing key stays active before the next takes over; 0: "
        "only by command.",
    )
    key_publish_ahead: int = Field(
        default=600,
        ge=10,
        description="Seconds a new key stands in the JWKS before it may sign. `check` warns "
        "below 600, twice the JWKS max-age: readers that cache it may lack the key.",
    )
