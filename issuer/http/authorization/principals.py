"""The principal of a valid access token, for the issuer's own endpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: The `client_id` of tokens from the exchange of a personal key.
PERSONAL_KEY_CLIENT_ID: Final = "gatehouse-key"


@dataclass(frozen=True, slots=True)
class Principal:
    """The facts in a valid access token of ours; only `AccessTokens` makes one.

    Attributes:
        subject: the user's or the client's id.
        username: None for a client.
        client_id: the client that requested the token.
        scopes: of the token.
        roles: names of roles.
        sid: the session or the grant.
        jti: the token's own id.
        generation: the subject's, at minting.
        auth_time: Unix seconds, like the next two.
        issued_at: when it was minted.
        expires_at: when it expires.
        audience: its `aud`.
        amr: the methods of its login (RFC 8176); empty without a person's login.
    """

    subject: str
    username: str | None
    client_id: str
    scopes: frozenset[str]
    roles: tuple[str, ...]
    sid: str
    jti: str
    generation: int
    auth_time: int
    issued_at: int
    expires_at: int
    audience: str
    amr: tuple[str, ...] = ()

    @property
    def is_client(self) -> bool:
        """Whether it is a client's own token: client and subject are the same."""
        return self.subject == self.client_id

    @property
    def is_personal_key(self) -> bool:
        """Whether it comes from a personal key, not from a session."""
        return self.client_id == PERSONAL_KEY_CLIENT_ID
