"""Whom a living access token speaks about, as the issuer's own endpoints see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: The `client_id` of tokens for which a user's personal key was exchanged.
PERSONAL_KEY_CLIENT_ID: Final = "gatehouse-key"


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a living access token of ours speaks about; only `AccessTokens` makes one.

    Attributes:
        subject: the user's or the client's id.
        username: None for a client.
        client_id: who asked for the token.
        scopes: what the token grants.
        roles: names of roles.
        sid: the session or the grant.
        jti: the token's own id.
        generation: the subject's, at minting.
        auth_time: Unix seconds, as are the next two.
        issued_at: when it was minted.
        expires_at: when it ends.
        audience: for whom it is meant.
        amr: the methods of its login (RFC 8176); empty: no login of a person.
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
        """Whether a client speaks for itself: then it is its own subject."""
        return self.subject == self.client_id

    @property
    def is_personal_key(self) -> bool:
        """Whether a personal key of the user was exchanged for it: no session."""
        return self.client_id == PERSONAL_KEY_CLIENT_ID
