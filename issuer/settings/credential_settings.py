"""Settings of passwords, logins and personal keys."""

from __future__ import annotations

from pydantic import Field

from shared.configuration.settings import ProgramSettings


class CredentialSettings(ProgramSettings):
    """How people prove who they are, and what a wrong proof costs."""

    bcrypt_cost: int = Field(
        default=12, ge=10, le=16, description="bcrypt cost (log2 of the rounds)."
    )
    hash_workers: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Threads that hash passwords; 0: one per processor.",
    )
    hash_queue: int = Field(
        default=32,
        ge=0,
        le=10_000,
        description="Logins that may wait for a hashing thread; more get 503 at once.",
    )
    password_min_length: int = Field(
        default=15,
        ge=8,
        le=64,
        description="Shortest password in code points (NIST SP 800-63B-4: 15 when the "
        "password stands alone, never under 8).",
    )
    login_free_failures: int = Field(
        default=5,
        ge=1,
        le=100,
        description="Failed logins to one name before the next has to wait: a second, "
        "and with each failure twice as long.",
    )
    login_source_free_failures: int = Field(
        default=50,
        ge=1,
        le=100_000,
        description="The same for all failed logins from one network (IPv4 /24, IPv6 "
        "/56) together. Behind a gateway it needs ISSUER_TRUSTED_PROXIES.",
    )
    login_max_delay: int = Field(
        default=900,
        ge=1,
        le=86_400,
        description="The longest such wait, seconds; no account is locked permanently.",
    )
    admin_max_login_age: int = Field(
        default=0,
        ge=0,
        le=366 * 86_400,
        description="How long after a login its tokens may administer, seconds; then "
        "people log in again. 0: as long as the session lasts.",
    )
    admin_second_factor: bool = Field(
        default=False,
        description="Whether people may administer only with a login that showed a "
        "second factor.",
    )
    device_token_ttl: int = Field(
        default=90 * 86_400,
        ge=0,
        le=366 * 86_400,
        description="How long a device that has logged in is known by its device token, "
        "seconds: others' failures do not make it wait. 0: no device is known.",
    )
    password_reset_ttl: int = Field(
        default=3_600,
        ge=60,
        le=7 * 86_400,
        description="How long an administrator's password reset token is good, seconds.",
    )
    password_grant: bool = Field(
        default=False,
        description="Whether /oauth2/token takes user names and passwords "
        "(grant_type=password), which RFC 9700 tells not to.",
    )
    personal_key_max_ttl: int = Field(
        default=366 * 86_400,
        ge=3_600,
        le=3_660 * 86_400,
        description="The longest lifetime a personal key may be given, seconds.",
    )
    personal_key_admin: bool = Field(
        default=False,
        description="Whether a personal key may have the scope gatehouse:admin, when "
        "the request that makes it names that scope. Off, keys made before do not get "
        "it either.",
    )
    personal_key_limit: int = Field(
        default=60,
        ge=0,
        le=100_000,
        description="Personal keys that one user may make in 3,600 seconds; more get 429. 0: "
        "no limit.",
    )
    personal_key_exchange_limit: int = Field(
        default=600,
        ge=0,
        le=60_000,
        description="Exchanges of all personal keys of one user in 60 seconds; more get "
        "429. 0: no limit.",
    )
