"""The endpoints of security events, in the form of the setting."""

from __future__ import annotations

import json
import re
from typing import Final

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)

from shared.configuration.urls import check_foreign_url
from shared.jose.json_members import DuplicateMemberError, require_distinct_members

_RULE: Final = (
    "must be a JSON list of objects with name, url, audience and token, or @PATH of a "
    "file that holds one"
)
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]{16,4096}=*")


class EventEndpoint(BaseModel):
    """A receiver of security events (RFC 8935).

    Attributes:
        name: names it in metrics, logs and the database; keep it when the URL changes.
        url: gets the events by POST: https, or http to loopback.
        audience: the `aud` of its events.
        token: sent as Bearer (RFC 6750), 16 characters or more.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    url: str = Field(max_length=2_000)
    audience: str = Field(min_length=1, max_length=1_000)
    token: SecretStr

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        return check_foreign_url(value)

    @field_validator("token")
    @classmethod
    def _check_token(cls, value: SecretStr) -> SecretStr:
        if not _TOKEN.fullmatch(value.get_secret_value()):
            raise ValueError("must be a Bearer token of 16 characters or more")
        return value

    def __str__(self) -> str:
        # Without the URL, whose query may be a secret of the receiver.
        return self.name


def read_endpoints(text: str) -> tuple[EventEndpoint, ...]:
    """Return the endpoints of a setting.

    Args:
        text: a JSON list, or nothing.

    Raises:
        ValueError: naming the rule; the text has secrets and is not repeated.
    """
    try:
        entries = json.loads(text) if text.strip() else []
        require_distinct_members(text.encode(), entries)
    except DuplicateMemberError as error:
        raise ValueError(f"{error.name or 'a member'}: {error.rule}") from None
    except (ValueError, RecursionError):  # deep nesting
        raise ValueError(_RULE) from None
    if not isinstance(entries, list):
        raise ValueError(_RULE)
    endpoints = tuple(_read_entry(*numbered) for numbered in enumerate(entries, 1))
    if len({endpoint.name for endpoint in endpoints}) < len(endpoints):
        raise ValueError("each name must stand once")
    return endpoints


def _read_entry(number: int, entry: object) -> EventEndpoint:
    try:
        return EventEndpoint.model_validate(entry)
    except ValidationError as error:
        problem = error.errors()[0]
        name = problem["loc"][0] if problem["loc"] else "form"
        if name not in EventEndpoint.model_fields:
            name = "member"
        is_ours = problem["type"] == "value_error"
        says = str(problem["msg"]).removeprefix("Value error, ") if is_ours else _RULE
        raise ValueError(
            f"endpoint {number}: its {name} is not right; {says}"
        ) from None
