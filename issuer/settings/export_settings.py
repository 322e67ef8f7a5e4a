"""Settings of the audit log and of what is published besides the feed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from issuer.settings.event_endpoints import EventEndpoint, read_endpoints
from shared.configuration.settings import ProgramSettings, Secret
from shared.outgoing.authorities import AuthoritiesError, read_authorities


def _show_endpoints(endpoints: tuple[EventEndpoint, ...]) -> str:
    return f"(set: {', '.join(endpoint.name for endpoint in endpoints)})"


class ExportSettings(ProgramSettings):
    """Audit retention, canaries, status lists, security events."""

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
        description="Receivers of CAEP session-revoked events about ended sessions: a "
        'JSON list of {"name","url","audience","token"}, or @PATH of a file that holds '
        "one. None by default.",
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

    @field_validator("audit_retention")
    @classmethod
    def _check_audit_retention(cls, value: int) -> int:
        if 0 < value < 86_400:
            raise ValueError("must be 0, for ever, or 86400 seconds or more")
        return value

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
