"""Answers about clients; times are Unix seconds."""

from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from issuer.clients.client_rows import ClientView
from issuer.feed.change_requests import RevokedAnswer

_SECRET: Final = "ghs_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAhIiMk"  # noqa: S105
CLIENT_EXAMPLE: Final[dict[str, Any]] = {
    "name": "order import",
    "scopes": ["orders:read", "orders:write"],
    "audiences": ["https://orders.example"],
}
_SHOWN: Final[dict[str, Any]] = {
    "id": "gc_5e5b2f0f3c9c4d0e8f6f0a3a4f3f9b51",
    **CLIENT_EXAMPLE,
    "is_disabled": False,
    "created_at": 1795396833,
    "version": 1,
    "secrets": [{"number": 1, "created_at": 1795396833}],
}


class SecretAnswer(BaseModel):
    """A living secret, without its text."""

    number: int
    created_at: int


class ClientAnswer(BaseModel):
    """A client; without audiences its tokens have the issuer's own."""

    model_config = ConfigDict(json_schema_extra={"example": _SHOWN})

    id: str
    name: str
    scopes: list[str]
    audiences: list[str]
    is_disabled: bool
    created_at: int
    version: int
    secrets: list[SecretAnswer]

    @classmethod
    def of(cls, view: ClientView) -> "ClientAnswer":
        """Return the answer for this client."""
        return cls.model_validate(view, from_attributes=True)


class NewClientAnswer(ClientAnswer):
    """A new client with its secret, which is shown only once."""

    model_config = ConfigDict(
        json_schema_extra={"example": {**_SHOWN, "client_secret": _SECRET}}
    )

    client_secret: str


class ChangedClientAnswer(ClientAnswer):
    """A changed client, with `revocation` if the change revoked its tokens."""

    revocation: RevokedAnswer | None = None


class ClientsAnswer(BaseModel):
    """One page of clients; `next_cursor` is for the next page, null after the last."""

    clients: list[ClientAnswer]
    next_cursor: str | None


class NewSecretAnswer(BaseModel):
    """A new secret, which is shown only once, and the number for its removal."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"number": 2, "client_secret": _SECRET}}
    )

    number: int
    client_secret: str
