"""What is kept of a client for a second does no harm that the feed does not undo."""

from __future__ import annotations

import pytest

from issuer.acts import Caller
from issuer.clients.authentication import AuthenticatedClient, ClientAuthentication
from issuer.clients.clients import ClientChange
from issuer.clients.credentials import ClientCredentials
from issuer.errors import InvalidClientError
from issuer.storage.tables.clients import Client
from tests.support.issuer_harness import IssuerHarness
from tests.support.oauth_clients import ClientUnderTest, create_client


@pytest.fixture
async def client(issuer: IssuerHarness) -> ClientUnderTest:
    return await create_client(issuer, ["orders:read"])


@pytest.fixture
def elsewhere(issuer: IssuerHarness) -> ClientAuthentication:
    """Authentication in another process, which hears nothing from this one."""
    return ClientAuthentication(issuer.issuer.base, issuer.issuer.audit.counts)


async def show(
    authentication: ClientAuthentication, client: ClientUnderTest
) -> AuthenticatedClient:
    shown = ClientCredentials(client.id, client.secret)
    return await authentication.verify(shown, Caller())


async def test_a_proof_cached_by_another_process_mints_no_valid_token(
    issuer: IssuerHarness, client: ClientUnderTest, elsewhere: ClientAuthentication
) -> None:
    kept = await show(elsewhere, client)
    clients = issuer.issuer.clients.clients
    await clients.disable(client.id, lambda _: None, actor="system", caller=Caller())
    stale = await show(elsewhere, client)
    assert stale == kept
    async with issuer.database.read() as db:
        row = await db.get(Client, client.id)
    assert row is not None
    # Every verifier that has read the feed, and every issuer, wants this or more.
    assert stale.generation < row.generation
    issuer.clock.advance(1)
    with pytest.raises(InvalidClientError):
        await show(elsewhere, client)


async def test_a_change_is_known_at_once_where_it_was_made(
    issuer: IssuerHarness, client: ClientUnderTest
) -> None:
    authentication = issuer.issuer.clients.authentication
    clients = issuer.issuer.clients.clients
    assert (await show(authentication, client)).scopes == {"orders:read"}
    await clients.change(
        client.id,
        ClientChange(scopes=["orders:read", "more"]),
        lambda _: None,
        actor="system",
        caller=Caller(),
    )
    assert (await show(authentication, client)).scopes == {"orders:read", "more"}
    await clients.revoke_all(client.id, Caller(), actor="system")
    assert (await show(authentication, client)).generation == 1
    await clients.remove_secret(client.id, 1, actor="system", caller=Caller())
    with pytest.raises(InvalidClientError):
        await show(authentication, client)


async def test_a_new_secret_is_taken_by_every_process_at_once(
    issuer: IssuerHarness, client: ClientUnderTest, elsewhere: ClientAuthentication
) -> None:
    await show(elsewhere, client)
    made = await issuer.issuer.clients.clients.add_secret(
        client.id, actor="system", caller=Caller()
    )
    newer = ClientUnderTest(issuer, client.id, made.secret)
    assert (await show(elsewhere, newer)).client_id == client.id


async def test_a_wrong_secret_is_refused_with_any_cached_proof(
    issuer: IssuerHarness, client: ClientUnderTest, elsewhere: ClientAuthentication
) -> None:
    await show(elsewhere, client)
    other = await create_client(issuer)
    with pytest.raises(InvalidClientError):
        await show(elsewhere, ClientUnderTest(issuer, client.id, other.secret))
    # The right one still counts.
    await show(elsewhere, client)
