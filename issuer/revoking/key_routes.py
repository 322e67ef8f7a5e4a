"""`/keys`: the signing keys, for administrators."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, Field

from issuer.feed.change_requests import REVOKED_ANSWER, AdminChange, RevokedAnswer
from issuer.http.authorization.authentication import Administrator
from issuer.http.dependencies import PartOf
from issuer.http.strict_json import read_query
from issuer.keys.key_list import KeyList, KeyView
from issuer.keys.store import KeyState
from issuer.revoking.revocations import Revocations

#: An RFC 7638 thumbprint.
_Kid = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{43}$")]


class KeyAnswer(BaseModel):
    """One signing key. Times are Unix seconds, `age` seconds since it was made."""

    kid: str
    state: KeyState
    age: int
    created_at: int
    activated_at: int | None
    retired_at: int | None
    gone_at: int | None
    kek_id: str | None = Field(
        description="The key-encryption key of its private half; null: erased."
    )

    @classmethod
    def of(cls, view: KeyView) -> "KeyAnswer":
        """Return the answer that tells this key."""
        return cls.model_validate(view, from_attributes=True)


class KeysAnswer(BaseModel):
    """The keys, newest first, those that are gone last."""

    keys: list[KeyAnswer]
    followers_behind: int = Field(
        description="Verifiers that do not have the published keys yet: the next key "
        "waits for them."
    )
    followers_silent: int = Field(
        description="Verifiers that say nothing of keys: counted by time."
    )


router = APIRouter(prefix="/keys", tags=["signing keys"])
_KeyList = Annotated[KeyList, Depends(PartOf(KeyList))]
_Revocations = Annotated[Revocations, Depends(PartOf(Revocations))]


@router.get("", summary="List the signing keys")
async def list_keys(
    request: Request, _admin: Administrator, key_list: _KeyList
) -> KeysAnswer:
    """Answer every key that is published, and the last hundred that are gone."""
    read_query(request, ())
    listing = await key_list.read()
    return KeysAnswer(
        keys=[KeyAnswer.of(view) for view in listing.keys],
        followers_behind=listing.awaited.behind,
        followers_silent=listing.awaited.silent,
    )


@router.post("/{kid}/revoke", summary="Withdraw a signing key", **REVOKED_ANSWER)
async def revoke_key(
    kid: _Kid,
    change: AdminChange,
    revocations: _Revocations,
) -> RevokedAnswer:
    """Withdraw a key that may be known to others, and every token it ever signed.

    It leaves the JWKS at once, and another key signs at once. Also the caller's own
    access token may be one that is refused from now on.
    """
    position = await revocations.revoke_key(kid, change.caller, actor=change.actor)
    return await change.answer_revoked(position)
