"""`/clients`: programs that authenticate by themselves, for administrators."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import ConfigDict, Field

from issuer.clients.audiences import MAX_AUDIENCES
from issuer.clients.client_answers import (
    CLIENT_EXAMPLE,
    ChangedClientAnswer,
    ClientAnswer,
    ClientsAnswer,
    NewClientAnswer,
    NewSecretAnswer,
)
from issuer.clients.clients import MAX_PAGE, ClientChange, Clients
from issuer.feed.change_requests import (
    MAY_MATCH,
    MUST_MATCH,
    REVOKED_ANSWER,
    AdminChange,
    RevokedAnswer,
)
from issuer.http.authorization.authentication import Administrator
from issuer.http.dependencies import PartOf
from issuer.http.preconditions import ETAG_HEADER, tag_answer
from issuer.http.strict_json import StrictRoute, read_limit, read_query
from issuer.sessions.answers import StrictBody

_PAGE: Final[dict[str, Any]] = {
    "parameters": [
        {
            "name": "limit",
            "in": "query",
            "schema": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE},
            "example": 20,
        },
        {"name": "cursor", "in": "query", "schema": {"type": "string"}},
    ]
}
_WITH_ETAG: Final[dict[int | str, dict[str, Any]]] = {200: {"headers": ETAG_HEADER}}
_Scopes = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=64)
]
_Audiences = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=256)]],
    Field(max_length=MAX_AUDIENCES),
]
_ClientId = Annotated[str, Path(pattern="^gc_[0-9a-f]{32}$")]


class NewClientBody(StrictBody):
    """A client to make; without audiences its tokens are for the issuer's own."""

    model_config = ConfigDict(json_schema_extra={"example": CLIENT_EXAMPLE})

    name: str
    scopes: _Scopes = Field(default=[])
    audiences: _Audiences = Field(default=[])


class ClientChangeBody(StrictBody):
    """What shall be different about a client; what is left out stays."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"scopes": ["orders:read"]}}
    )

    name: str | None = None
    scopes: _Scopes | None = None
    audiences: _Audiences | None = None


router = APIRouter(route_class=StrictRoute, tags=["clients"])
_Clients = Annotated[Clients, Depends(PartOf(Clients))]


@router.post("/clients", status_code=201, summary="Make a client")
async def create_client(
    body: NewClientBody,
    change: AdminChange,
    clients: _Clients,
) -> NewClientAnswer:
    """Answer the new client and its secret, which is shown this once."""
    made = await clients.create(
        body.name,
        body.scopes,
        body.audiences,
        actor=change.actor,
        caller=change.caller,
    )
    change.set_location(f"/clients/{made.client_id}")
    shown = change.tag(ClientAnswer.of(await clients.get(made.client_id)))
    return NewClientAnswer(**shown.model_dump(), client_secret=made.secret)


@router.get("/clients", summary="List clients", openapi_extra=_PAGE)
async def list_clients(
    request: Request, admin: Administrator, clients: _Clients
) -> ClientsAnswer:
    """Answer one page of clients, oldest first."""
    query = read_query(request, ("limit", "cursor"))
    limit = read_limit(query, MAX_PAGE)
    page = await clients.list_page(limit, query.get("cursor"))
    return ClientsAnswer(
        clients=[ClientAnswer.of(view) for view in page.rows],
        next_cursor=page.next_cursor,
    )


@router.get("/clients/{client_id}", summary="Show a client", responses=_WITH_ETAG)
async def show_client(
    client_id: _ClientId, response: Response, admin: Administrator, clients: _Clients
) -> ClientAnswer:
    """Answer the client and the numbers of its secrets."""
    return tag_answer(response, ClientAnswer.of(await clients.get(client_id)))


@router.patch(
    "/clients/{client_id}",
    summary="Change a client",
    responses=_WITH_ETAG,
    openapi_extra=MUST_MATCH,
    **REVOKED_ANSWER,
)
async def change_client(
    client_id: _ClientId,
    body: ClientChangeBody,
    change: AdminChange,
    clients: _Clients,
) -> ChangedClientAnswer:
    """Answer the client as it is now.

    A scope or an audience that was taken away is taken from living tokens too: all
    of the client's are revoked, and `revocation` tells it.
    """
    position = await clients.change(
        client_id,
        ClientChange(body.name, body.scopes, body.audiences),
        change.must_match(ClientAnswer.of),
        actor=change.actor,
        caller=change.caller,
    )
    shown = change.tag(ClientAnswer.of(await clients.get(client_id)))
    ended = None if position is None else await change.answer_revoked(position)
    return ChangedClientAnswer(**shown.model_dump(), revocation=ended)


@router.post(
    "/clients/{client_id}/disable",
    summary="Disable a client",
    openapi_extra=MAY_MATCH,
    **REVOKED_ANSWER,
)
async def disable_client(
    client_id: _ClientId,
    change: AdminChange,
    clients: _Clients,
) -> RevokedAnswer:
    """Revoke the client's tokens; it gets no more until it is enabled."""
    position = await clients.disable(
        client_id,
        change.may_match(ClientAnswer.of),
        actor=change.actor,
        caller=change.caller,
    )
    return await change.answer_revoked(position)


@router.post(
    "/clients/{client_id}/enable",
    summary="Enable a client",
    responses=_WITH_ETAG,
    openapi_extra=MAY_MATCH,
)
async def enable_client(
    client_id: _ClientId,
    change: AdminChange,
    clients: _Clients,
) -> ClientAnswer:
    """Answer the client, which gets tokens again; the old ones stay revoked."""
    await clients.enable(
        client_id,
        change.may_match(ClientAnswer.of),
        actor=change.actor,
        caller=change.caller,
    )
    return change.tag(ClientAnswer.of(await clients.get(client_id)))


@router.delete(
    "/clients/{client_id}",
    summary="Delete a client",
    openapi_extra=MAY_MATCH,
    **REVOKED_ANSWER,
)
async def delete_client(
    client_id: _ClientId,
    change: AdminChange,
    clients: _Clients,
) -> RevokedAnswer:
    """Remove the client for good, and revoke its tokens."""
    position = await clients.delete(
        client_id,
        change.may_match(ClientAnswer.of),
        actor=change.actor,
        caller=change.caller,
    )
    return await change.answer_revoked(position)


@router.delete(
    "/clients/{client_id}/tokens",
    summary="Revoke a client's tokens",
    **REVOKED_ANSWER,
)
async def revoke_tokens(
    client_id: _ClientId,
    change: AdminChange,
    clients: _Clients,
) -> RevokedAnswer:
    """Revoke every token in which the client speaks for itself; it may get others."""
    position = await clients.revoke_all(client_id, change.caller, actor=change.actor)
    return await change.answer_revoked(position)


@router.post("/clients/{client_id}/secrets", status_code=201, summary="Add a secret")
async def add_secret(
    client_id: _ClientId,
    change: AdminChange,
    clients: _Clients,
) -> NewSecretAnswer:
    """Answer a second secret, shown this once; the first lives until it is removed."""
    made = await clients.add_secret(client_id, actor=change.actor, caller=change.caller)
    change.set_location(f"/clients/{client_id}/secrets/{made.number}")
    return NewSecretAnswer(number=made.number, client_secret=made.secret)


@router.delete(
    "/clients/{client_id}/secrets/{number}",
    status_code=204,
    summary="Remove a secret",
)
async def remove_secret(
    client_id: _ClientId,
    number: Annotated[int, Path(ge=1, le=2**31)],
    change: AdminChange,
    clients: _Clients,
) -> None:
    """Remove it at once; tokens that were got with it live on, see `tokens`."""
    await clients.remove_secret(
        client_id, number, actor=change.actor, caller=change.caller
    )
