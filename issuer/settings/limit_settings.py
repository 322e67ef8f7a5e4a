"""Settings of what one request or connection may use."""

from __future__ import annotations

from pydantic import Field

from shared.configuration.settings import ProgramSettings


class LimitSettings(ProgramSettings):
    """Sizes of bodies, numbers of connections, the time to drain."""

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
    drain_idle: float = Field(
        default=5.0,
        ge=0.0,
        le=300.0,
        description="Seconds a connection idles, at least, before a stop closes it. More "
        "than the gateway keeps one: then it sends no request on a connection that closes.",
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
