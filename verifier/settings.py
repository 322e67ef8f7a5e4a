"""Settings of the verifier, from the environment and `.env`, prefix `VERIFIER_`.

The command builds them once and passes them down. A bad value stops the start, with the
name of the setting.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Final, Literal

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_settings import NoDecode, SettingsConfigDict

from shared.claims import DEFAULT_LEEWAY, MAX_LEEWAY
from shared.configuration.addresses import check_binds_differ, read_networks
from shared.configuration.env_file import DEFAULT_ENV_FILE, EnvFile
from shared.configuration.settings import (
    ProgramSettings,
    SettingsError,
    check_bind,
    check_url,
    load,
)
from shared.distribution import install_line
from shared.feed import FEED_TOKEN_FORM

__all__ = ["SettingsError", "VerifierSettings", "load_settings"]

#: A look starts a thread.
LEAST_POLICY_WATCH: Final = 0.1
#: The modules of the extra `grpc`, by which its packages are found.
GRPC_MODULES: Final = ("grpc", "google.protobuf")


class VerifierSettings(ProgramSettings):
    """Every setting of the verifier; durations are in seconds."""

    model_config = SettingsConfigDict(
        env_prefix="VERIFIER_",
        env_file=".env",
        extra="ignore",
        hide_input_in_errors=True,
    )

    issuer_url: str = Field(
        description="The issuer's URL, exactly the `iss` of its tokens. https, or http "
        "to loopback; no user name, trailing slash, query or fragment."
    )
    audience: str = Field(
        min_length=1,
        max_length=256,
        description="The `aud` a token must carry: the name of your API.",
    )
    jwks_url: str = Field(
        default="",
        description="URL of the JWKS; empty: ISSUER_URL/.well-known/jwks.json.",
    )
    feed_url: str = Field(
        default="",
        description="URL of the revocation feed; empty: ISSUER_URL/revocations.",
    )
    feed_token: SecretStr = Field(
        description="The issuer's ISSUER_FEED_TOKEN; 32 characters or more.",
    )
    ca_file: str = Field(
        default="",
        description="PEM file of authorities to trust for https; empty: the system's. "
        "Read again when it changes.",
    )
    bind: str = Field(
        default="127.0.0.1:9000",
        description="Address for the gateways: HOST:PORT or unix:/PATH. [::]:PORT listens on "
        "every address, also of IPv4.",
    )
    admin_bind: str = Field(
        default="127.0.0.1:9100",
        description="The operators' port: /metrics /healthz /readyz /status /explain. "
        "HOST:PORT or unix:/PATH.",
    )
    grpc_bind: str = Field(
        default="",
        description="Address for Envoy's ext_authz over gRPC: HOST:PORT or, with one "
        "worker, unix:/PATH. It needs the extra `grpc`. Empty: off.",
    )
    envoy_bind: str = Field(
        default="",
        description="For `native envoy`: the xDS server that Envoys ask for their filters, "
        "unix:/PATH. It needs the extra `native`.",
    )
    envoy_admin: str = Field(
        default="",
        description="For `native envoy`: Envoy's admin interface, unix:/PATH, the `pipe` of its "
        "`admin.address`. It proves what Envoy's workers have.",
    )
    haproxy_master: str = Field(
        default="",
        description="For `native haproxy`: HAProxy's master CLI, unix:/PATH, as in its "
        "option -S.",
    )
    haproxy_dir: str = Field(
        default="",
        description="For `native haproxy`: directory for keys and maps, which HAProxy reads.",
    )
    native_policies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("default",),
        description="For `native`: names of the policies that gateways check by themselves, "
        "comma-separated. A gateway has to be able to check all that they ask.",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Worker processes. `native` takes 1 only.",
    )
    start_wait: float = Field(
        default=5.0,
        ge=0.0,
        # The supervisor gives a worker up that does not serve after 120 s.
        le=90.0,
        description="Seconds a starting worker waits for keys and a complete list of "
        "revocations before it accepts connections without them.",
    )
    drain_delay: float = Field(
        default=0.0,
        ge=0.0,
        le=300.0,
        description="Seconds from a stop signal, when /readyz turns 503, until the first "
        "connection is ended: the time a load balancer needs to notice.",
    )
    drain_idle: float = Field(
        default=5.0,
        ge=0.0,
        le=300.0,
        description="Seconds a connection idles, at least, before a stop closes it. More "
        "than the gateway keeps one: then it sends no request on a connection that closes.",
    )
    trusted_peers: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("127.0.0.0/8", "::1/128"),
        description="Addresses or networks of the gateways, comma-separated. A unix socket is "
        "always trusted.",
    )
    policy_file: str = Field(
        default="",
        description="TOML file of policies by route; empty: one policy, `default`, that "
        "asks for a valid token and nothing more.",
    )
    issuers_file: str = Field(
        default="",
        description="TOML file of other issuers whose tokens policies can accept "
        "(docs/issuers/README.md); empty: none. Read again with the policy file.",
    )
    policy_watch: float = Field(
        default=1.0,
        ge=0.0,
        le=3_600.0,
        description="Seconds between two looks whether the policy file or the issuers file "
        "changed. A new file is read after the second look at it. 0: only a reload (HUP) "
        "reads it.",
    )
    leeway: int = Field(
        default=DEFAULT_LEEWAY,
        ge=0,
        le=MAX_LEEWAY,
        description="Seconds by which the clock may differ from the issuer's.",
    )
    max_staleness: int = Field(
        default=30,
        ge=11,
        le=3_600,
        description="Seconds without news from the feed until every check answers 503. `native` "
        "needs at least 13.",
    )
    state_dir: str = Field(
        default="",
        description="Directory on a local disk for copies of keys and revocations, which allow "
        "a start without the issuer. It may be shared: the copies are in "
        "gatehouse-verifier/ within it, mode 0700. Empty: no copies.",
    )
    keys_max_age: int = Field(
        default=86_400,
        ge=60,
        le=30 * 86_400,
        description="Seconds the last good keys are used while the JWKS is unreachable.",
    )
    cache_entries: int = Field(
        default=100_000,
        ge=2,
        le=10_000_000,
        description="Tokens in the cache of each worker.",
    )
    cache_bytes: int = Field(
        default=256 * 1_048_576,
        ge=1_048_576,
        description="Bytes of the cache of each worker, estimated.",
    )
    max_connections: int = Field(
        default=10_000,
        ge=10,
        le=1_000_000,
        description="Connections of each worker; further ones are answered 503 and closed.",
    )
    refusal_log_rate: int = Field(
        default=10,
        ge=0,
        le=10_000,
        description="Log lines `gate.refused` per second and worker, with bursts of twice as "
        "many. Further refusals are only counted. 0: no lines.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lowest level of the JSON log lines."
    )

    _check_url = field_validator("issuer_url")(check_url)
    _check_bind = field_validator("bind", "admin_bind")(check_bind)

    @field_validator("grpc_bind")
    @classmethod
    def _check_grpc_bind(cls, value: str) -> str:
        if not value:
            return value
        missing = [name for name in GRPC_MODULES if not _is_installed(name)]
        if missing:
            raise ValueError(
                f"needs what is not installed here ({', '.join(missing)}); install the "
                f"extra: {install_line('verifier', 'grpc')}, or in a clone: "
                "sh requirements/install PYTHON requirements/grpc.lock, or as an "
                "image: docker build --target verifier-grpc"
            )
        return check_bind(value)

    @field_validator("envoy_bind", "envoy_admin", "haproxy_master")
    @classmethod
    def _check_socket(cls, value: str) -> str:
        # No network: its peers could read sessions there, or open the gateway.
        if value and not value.startswith("unix:/"):
            raise ValueError("must be a unix socket: unix:/PATH")
        return check_bind(value) if value else value

    @field_validator("max_staleness", mode="wrap")
    @classmethod
    def _name_both_bounds(
        cls, value: object, read: ValidatorFunctionWrapHandler
    ) -> object:
        try:
            return read(value)
        except ValidationError as error:
            if error.errors()[0]["type"] != "greater_than_equal":
                raise
            # Else the right value takes two tries.
            raise ValueError("must be 11 or more, and with `native` 13") from None

    @field_validator("native_policies", mode="before")
    @classmethod
    def _read_names(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(name.strip() for name in value.split(",") if name.strip())

    @field_validator("native_policies")
    @classmethod
    def _check_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("must name at least one policy")
        return value

    @field_validator("jwks_url", "feed_url")
    @classmethod
    def _check_source(cls, value: str) -> str:
        return check_url(value) if value else value

    @field_validator("feed_token")
    @classmethod
    def _check_feed_token(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if not FEED_TOKEN_FORM.fullmatch(text):
            raise ValueError(
                "must be the issuer's ISSUER_FEED_TOKEN, 32 to 4096 printable ASCII "
                "characters"
            )
        return value

    @field_validator("policy_watch")
    @classmethod
    def _check_policy_watch(cls, value: float) -> float:
        if 0 < value < LEAST_POLICY_WATCH:
            raise ValueError(f"must be 0, or at least {LEAST_POLICY_WATCH}")
        return value

    @field_validator("trusted_peers", mode="before")
    @classmethod
    def _read_networks(cls, value: object) -> object:
        return read_networks(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_binds(self) -> VerifierSettings:
        check_binds_differ("VERIFIER_", self.bind, self.admin_bind)
        if self.grpc_bind:
            for name, bind in (("BIND", self.bind), ("ADMIN_BIND", self.admin_bind)):
                check_binds_differ(
                    "VERIFIER_", bind, self.grpc_bind, names=(name, "GRPC_BIND")
                )
            # Each worker opens a socket of its own there, and one path has one socket.
            if self.grpc_bind.startswith("unix:") and self.workers > 1:
                raise ValueError(
                    "VERIFIER_GRPC_BIND: a unix socket has one worker; write HOST:PORT, "
                    "or VERIFIER_WORKERS=1"
                )
        return self

    @model_validator(mode="after")
    def _check_files(self) -> VerifierSettings:
        if self.issuers_file and not self.policy_file:
            raise ValueError(
                "VERIFIER_ISSUERS_FILE: has no effect without VERIFIER_POLICY_FILE, "
                'whose policies name the issuers: issuers = ["NAME"]'
            )
        return self

    @model_validator(mode="after")
    def _fill_urls(self) -> VerifierSettings:
        self.jwks_url = self.jwks_url or f"{self.issuer_url}/.well-known/jwks.json"
        self.feed_url = self.feed_url or f"{self.issuer_url}/revocations"
        return self


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        # Of a package inside a package that is missing.
        return False


def load_settings(env_file: EnvFile | None = DEFAULT_ENV_FILE) -> VerifierSettings:
    """Read the settings from the environment, then from `env_file`.

    Raises:
        SettingsError: with one line per setting that is missing, wrong or unknown.
    """
    return load(VerifierSettings, env_file)
