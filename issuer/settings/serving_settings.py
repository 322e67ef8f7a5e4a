"""Settings of the ports, and of who may connect to them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from issuer.settings.browser_origins import read_origins
from shared.configuration.addresses import read_networks
from shared.configuration.settings import ProgramSettings, check_bind


class ServingSettings(ProgramSettings):
    """Followers, ports, processes, proxies, browsers."""

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
        "trusted for the client's address; `unix` means every peer of our unix socket. "
        "None by default.",
    )
    access_log: bool = Field(
        default=False,
        description="Whether each answered request has a log line: method, route, status, "
        "duration, bytes, the client's address, ids. Never a path, a query or a body.",
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

    _check_bind = field_validator("bind", "admin_bind")(check_bind)
    _read_origins = field_validator("cors_origins", mode="before")(read_origins)

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _read_proxies(cls, value: object) -> object:
        return read_networks(value, words={"unix"}) if isinstance(value, str) else value
