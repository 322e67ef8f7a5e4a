"""Answers of token endpoints; they must not be cached (RFC 6749, section 5.1)."""

from typing import Final, Literal

from fastapi import Response
from pydantic import BaseModel, ConfigDict

from issuer.sessions.sessions import TokenPair

_NO_STORE: Final = ((b"cache-control", b"no-store"), (b"pragma", b"no-cache"))


class StrictBody(BaseModel):
    """A request body: unknown members are refused, types are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class TokenAnswer(BaseModel):
    """The tokens of a session, with OAuth's names; `expires_in` is in seconds."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105
    expires_in: int
    refresh_token: str
    scope: str

    @classmethod
    def of(cls, pair: TokenPair) -> "TokenAnswer":
        """Return the answer with this pair."""
        return cls(
            access_token=pair.access_token,
            expires_in=pair.expires_in,
            refresh_token=pair.refresh_token,
            scope=pair.scope,
        )


def forbid_storing(response: Response) -> None:
    """Forbid caches to store an answer with tokens."""
    response.raw_headers.extend(_NO_STORE)
