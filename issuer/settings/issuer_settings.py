"""Settings of the issuer, from the environment and `.env`, prefix `ISSUER_`.

Built once by the command and passed down. A bad value stops the start: the message names
the setting and what would be right, and never repeats the value, which may be a secret.

It is longer than other files: it is the one list in which every setting stands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from issuer.settings.browser_origins import read_origins
from issuer.settings.database_password import add_password
from issuer.settings.database_url import (
    check_database_url,
    describe_database_url,
    is_sqlite,
    parse_postgres_url,
)
from issuer.settings.event_endpoints import EventEndpoint, read_endpoints
from issuer.settings.key_ring import KEY_BYTES, KeyRing, read_key_ring, show_key_ring
from shared.addresses import check_binds_differ, read_networks
from shared.claims import LONGEST_ACCESS_TTL
from shared.feed import FEED_TOKEN_FORM
from shared.outgoing.authorities import AuthoritiesError, read_authorities
from shared.settings import (
    ProgramSettings,
    Secret,
    SettingsError,
    check_bind,
    check_url,
    load,
)

__all__ = [
    "KEY_BYTES",
    "IssuerSettings",
    "KeyRing",
    "SettingsError",
    "load_settings",
]

PREFIX = "ISSUER_"


def _show_endpoints(endpoints: tuple[EventEndpoint, ...]) -> str:
    return f"(set: {', '.join(endpoint.name for endpoint in endpoints)})"


_RING: Final = Secret(show_key_ring)


class IssuerSettings(ProgramSettings):
    """Every setting of the issuer; durations are in seconds."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", extra="ignore", hide_input_in_errors=True
    )

    url: str = Field(
        description="The issuer's own URL: the `iss` of every token. https, or http to "
        "loopback; no user name, trailing slash, query or fragment."
    )
    audience: str = Field(
        min_length=1,
        max_length=256,
        description="The `aud` of every token: the name of your API.",
    )
    database_url: Annotated[str, Secret(describe_database_url)] = Field(
        default="sqlite+aiosqlite:///var/issuer.db",
        repr=False,
        description="sqlite+aiosqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME, "
        "with several hosts, TLS and other parameters as docs/database.md says.",
    )
    listen_url: Annotated[str, Secret(describe_database_url)] = Field(
        default="",
        repr=False,
        description="A direct connection to the same PostgreSQL database, for LISTEN, "
        "when ISSUER_DATABASE_URL leads through a pooler such as PgBouncer; empty: "
        "ISSUER_DATABASE_URL, or polling behind a pooler.",
    )
    database_pool_size: int = Field(
        default=10, ge=1, le=200, description="Connections kept per worker."
    )
    database_pool_timeout: float = Field(
        default=2.0,
        gt=0,
        le=30,
        description="Seconds to wait for a free connection before answering 503.",
    )
    database_statement_timeout: float = Field(
        default=15.0,
        ge=0,
        le=3_600,
        description="Seconds a statement on PostgreSQL may take before the answer is "
        "503; 0: no limit. Commands have none.",
    )
    database_password: SecretStr = Field(
        default=SecretStr(""),
        description="The password of the user that ISSUER_DATABASE_URL names, where the "
        "URL holds none; likewise for ISSUER_LISTEN_URL.",
    )
    feed_token: SecretStr = Field(
        description="What verifiers show to read the revocation feed; 32 characters "
        "or more."
    )
    key_encryption_keys: Annotated[KeyRing, NoDecode, _RING] = Field(
        repr=False,
        description="ID:KEY[,ID:KEY...], 32 bytes each in base64url. The first encrypts "
        "signing keys in the database, all decrypt.",
    )
    password_peppers: Annotated[KeyRing, NoDecode, _RING] = Field(
        repr=False,
        description="ID:KEY[,ID:KEY...], 32 bytes each in base64url. The first goes into "
        "new password hashes, all check old ones.",
    )
    refresh_keys: Annotated[KeyRing, NoDecode, _RING] = Field(
        repr=False,
        description="ID:KEY[,ID:KEY...], 32 bytes each in base64url. The first makes new "
        "refresh tokens, all recognise old ones.",
    )
    max_follower_staleness: int = Field(
        default=60,
        ge=11,
        le=3_600,
        description="The longest VERIFIER_MAX_STALENESS a verifier may follow with, "
        "seconds: so long a revocation can stay unconfirmed when verifiers vanish. Lower "
        "it only once no verifier claims more.",
    )
    bind: str = Field(
        default="127.0.0.1:8000",
        description="Where clients connect: HOST:PORT or unix:/PATH; [::]:PORT is every "
        "address, of IPv4 too.",
    )
    admin_bind: str = Field(
        default="127.0.0.1:8100",
        description="The operators' port: /metrics /healthz /readyz. HOST:PORT or "
        "unix:/PATH.",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes; more than one needs PostgreSQL.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Addresses or networks, comma-separated, whose X-Forwarded-For is "
        "believed for the client's address; `unix` means whoever connects to our unix "
        "socket. Nobody by default.",
    )
    docs: bool = Field(
        default=True,
        description="Whether /docs serves a page that shows the API and tries calls "
        "(Swagger UI, from the issuer's own files). The container image sets false.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins, comma-separated, whose web pages may call the issuer from "
        "a browser: https://HOST[:PORT], or http:// from loopback. None by default.",
    )
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
        description="Seconds a new key stands in the JWKS before it may sign; at least "
        "twice the JWKS max-age (300).",
    )
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
        description="The longest such wait, seconds: nobody is locked out for good.",
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
    max_body_bytes: int = Field(
        default=16_384,
        ge=1_024,
        le=1_048_576,
        description="Largest request body, bytes.",
    )
    drain_delay: float = Field(
        default=0.0,
        ge=0.0,
        le=300.0,
        description="Seconds from a stop signal, when /readyz turns 503, to the first "
        "connection that is ended: the time a load balancer needs to look.",
    )
    max_connections: int = Field(
        default=1_000,
        ge=10,
        le=1_000_000,
        description="Connections a worker keeps on its public port, nine tenths of them "
        "of one address; more are answered 503 and closed.",
    )
    bulk_max_body_bytes: int = Field(
        default=16_777_216,
        ge=1_024,
        le=134_217_728,
        description="Largest body of POST /revocations/bulk, which administrators alone "
        "may send, bytes.",
    )
    audit_retention: int = Field(
        default=0,
        ge=0,
        le=3_660 * 86_400,
        description="Audit events are deleted after this long and a day at most, seconds; "
        "86,400 or more. 0: never.",
    )
    canary_interval: int = Field(
        default=30,
        ge=0,
        le=86_400,
        description="Seconds between two canaries: revocations of nothing, by which "
        "verifiers time the way from here to them; 0: none.",
    )
    status_list: bool = Field(
        default=False,
        description="Whether access tokens carry an index into a Token Status List, "
        "which is published for resource servers without a verifier.",
    )
    status_list_ttl: int = Field(
        default=60,
        ge=5,
        le=86_400,
        description="Seconds a reader may keep a status list; a list expires after five "
        "times as many.",
    )
    caep_endpoints: Annotated[
        tuple[EventEndpoint, ...],
        NoDecode,
        Secret(_show_endpoints, may_name_file=True),
    ] = Field(
        default=(),
        repr=False,
        description="Who is told of ended sessions by CAEP session-revoked events: a "
        'JSON list of {"name","url","audience","token"}, or @PATH of a file that holds '
        "one. Nobody by default.",
    )
    caep_retry_for: int = Field(
        default=259_200,
        ge=3_600,
        le=30 * 86_400,
        description="Seconds during which an event is pushed again to an endpoint that "
        "does not take it.",
    )
    ca_file: str = Field(
        default="",
        description="PEM file of authorities to trust for https to the endpoints of "
        "ISSUER_CAEP_ENDPOINTS; empty: the system's. Read again when it changes.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level of the JSON log lines."
    )

    _check_url = field_validator("url")(check_url)
    _check_bind = field_validator("bind", "admin_bind")(check_bind)
    _read_origins = field_validator("cors_origins", mode="before")(read_origins)

    _check_database_url = field_validator("database_url")(check_database_url)

    @field_validator("listen_url")
    @classmethod
    def _check_listen_url(cls, value: str) -> str:
        if value:
            parse_postgres_url(value)
        return value

    @field_validator("feed_token")
    @classmethod
    def _check_feed_token(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if not FEED_TOKEN_FORM.fullmatch(text):
            raise ValueError(
                "must be 32 to 4096 printable ASCII characters; `python "
                "-m issuer generate-secrets` makes one"
            )
        return value

    @field_validator(
        "key_encryption_keys", "password_peppers", "refresh_keys", mode="before"
    )
    @classmethod
    def _read_key_ring(cls, value: object) -> KeyRing:
        return value if isinstance(value, KeyRing) else read_key_ring(str(value))

    @field_validator("ca_file")
    @classmethod
    def _check_ca_file(cls, value: str) -> str:
        # It is first used with the first event: a fault would be found late.
        if value:
            try:
                read_authorities(value)
            except AuthoritiesError as error:
                raise ValueError(str(error)) from None
        return value

    @field_validator("caep_endpoints", mode="before")
    @classmethod
    def _read_caep_endpoints(cls, value: object) -> object:
        return read_endpoints(value) if isinstance(value, str) else value

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _read_proxies(cls, value: object) -> object:
        return read_networks(value, words={"unix"}) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_together(self) -> IssuerSettings:
        if self.listen_url and is_sqlite(self.database_url):
            raise ValueError(
                "ISSUER_LISTEN_URL: is for PostgreSQL; leave it empty with SQLite"
            )
        if self.workers > 1 and is_sqlite(self.database_url):
            raise ValueError(
                "ISSUER_WORKERS: more than one process needs PostgreSQL; set "
                "ISSUER_DATABASE_URL=postgresql+asyncpg://... or ISSUER_WORKERS=1"
            )
        if self.refresh_idle_ttl > self.refresh_ttl:
            raise ValueError(
                "ISSUER_REFRESH_IDLE_TTL: must not exceed ISSUER_REFRESH_TTL"
            )
        return self

    @field_validator("audit_retention")
    @classmethod
    def _check_audit_retention(cls, value: int) -> int:
        if 0 < value < 86_400:
            raise ValueError("must be 0, for ever, or 86400 seconds or more")
        return value

    @model_validator(mode="after")
    def _check_binds(self) -> IssuerSettings:
        check_binds_differ(PREFIX, self.bind, self.admin_bind)
        return self

    @model_validator(mode="after")
    def _fill_password(self) -> IssuerSettings:
        password = self.database_password.get_secret_value()
        if password:
            self.database_url = add_password(self.database_url, password)
            if self.listen_url and not parse_postgres_url(self.listen_url).password:
                self.listen_url = add_password(self.listen_url, password)
        return self


def load_settings(env_file: Path | None = Path(".env")) -> IssuerSettings:
    """Read the settings from the environment, then from `env_file` when it is there.

    Raises:
        SettingsError: with one line per setting that is missing, wrong or unknown.
    """
    return load(IssuerSettings, env_file)
