"""A process that is paused between its commit and the minting dates tokens from before.

Dated from the end of the pause, a token would outlive every revocation that was
committed meanwhile: entries are kept for the tokens that can have been minted until
then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from issuer.keys.store import ActiveSigningKey, KeyStore
from issuer.storage.tables.sessions import Session
from shared.claims import CLOCK_ALLOWANCE, LONGEST_ACCESS_TTL, MAX_LEEWAY
from tests.support.following import FakeVerifier
from tests.support.issuer_harness import IssuerHarness
from tests.support.issuer_story import (
    PASSWORD,
    Tokens,
    log_in,
    post_login,
    post_refresh,
    read_segment,
)
from tests.support.login_story import begin_login, end_login, enrol
from tests.support.oauth_clients import add_role, create_client
from tests.support.personal_keys import exchange, make_key

#: Longer than any access token lives, seconds.
PAUSE = LONGEST_ACCESS_TTL + 600


class PausingKeys:
    """The issuer's keys, which are looked for last: behind the commit, before the
    signing.

    Attributes:
        sessions: how many sessions were committed before each pause.
    """

    def __init__(self, issuer: IssuerHarness) -> None:
        self._issuer = issuer
        self._keys: KeyStore = issuer.issuer.keys.store
        self.sessions: list[int] = []

    async def signing_key(self) -> ActiveSigningKey:
        """Pause, then return the key."""
        async with self._issuer.database.read() as db:
            count = await db.scalar(select(func.count()).select_from(Session))
        self.sessions.append(count or 0)
        self._issuer.clock.advance(PAUSE)
        return await self._keys.signing_key()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._keys, name)


Act = Callable[[], Awaitable[httpx.Response]]


async def prepare_login(issuer: IssuerHarness, alice: Tokens) -> Act:
    return lambda: post_login(issuer)


async def prepare_second_factor(issuer: IssuerHarness, alice: Tokens) -> Act:
    phone = await enrol(issuer, alice)
    code = phone.next_code()
    mfa_token = await begin_login(issuer)
    return lambda: end_login(issuer, mfa_token, code)


async def prepare_refresh(issuer: IssuerHarness, alice: Tokens) -> Act:
    return lambda: post_refresh(issuer, alice.refresh_token)


async def prepare_repeated_refresh(issuer: IssuerHarness, alice: Tokens) -> Act:
    await post_refresh(issuer, alice.refresh_token)
    return lambda: post_refresh(issuer, alice.refresh_token)


async def prepare_narrowed_refresh(issuer: IssuerHarness, alice: Tokens) -> Act:
    """With a scope, which takes the longer way on PostgreSQL."""
    form = {
        "grant_type": "refresh_token",
        "refresh_token": alice.refresh_token,
        "client_id": alice.claims["client_id"],
        "scope": "orders:read",
    }
    return lambda: issuer.client.post("/oauth2/token", data=form)


async def prepare_password_change(issuer: IssuerHarness, alice: Tokens) -> Act:
    body = {"current_password": PASSWORD, "new_password": f"{PASSWORD} two"}
    return lambda: issuer.client.post("/auth/password", json=body, headers=alice.bearer)


async def prepare_client_grant(issuer: IssuerHarness, alice: Tokens) -> Act:
    client = await create_client(issuer)
    return lambda: client.post("/oauth2/token", grant_type="client_credentials")


async def prepare_key_exchange(issuer: IssuerHarness, alice: Tokens) -> Act:
    made = await make_key(issuer, alice)
    return lambda: exchange(issuer, made["key"])


@pytest.mark.parametrize(
    "prepare",
    [
        prepare_login,
        prepare_second_factor,
        prepare_refresh,
        prepare_repeated_refresh,
        prepare_narrowed_refresh,
        prepare_password_change,
        prepare_client_grant,
        prepare_key_exchange,
    ],
)
async def test_a_token_is_dated_from_the_transaction_that_allows_it(
    issuer: IssuerHarness,
    prepare: Callable[[IssuerHarness, Tokens], Awaitable[Act]],
) -> None:
    """R53: after an hour's pause it has expired, and its `exp` shows it."""
    await add_role(issuer, "clerk", "orders:read orders:write")
    await issuer.create_user("alice", PASSWORD, ["clerk"])
    act = await prepare(issuer, await log_in(issuer))
    keys = PausingKeys(issuer)
    issuer.issuer.tokens.access_tokens._keys = keys  # type: ignore[assignment]
    before = issuer.clock.now
    answer = await act()
    assert issuer.clock.now == before + PAUSE
    assert answer.status_code == 200, answer.text
    body = answer.json()
    claims = read_segment(body["access_token"], 1)
    assert (claims["iat"], claims["exp"]) == (before, before + 600)
    assert body["expires_in"] == 600
    # Paused once, after everything was committed.
    assert keys.sessions == [await count_sessions(issuer)]


async def count_sessions(issuer: IssuerHarness) -> int:
    async with issuer.database.read() as db:
        return await db.scalar(select(func.count()).select_from(Session)) or 0


# --- clocks that differ
# ------------------------------------------------------------------

#: Seconds by which the clock that mints and the one that prunes are ahead of the clock
#: that revokes and verifies.
APART = CLOCK_ALLOWANCE - 10


@pytest.mark.parametrize(
    ("minting", "pruning"),
    [(APART, APART), (APART, 0), (0, APART), (-APART, -APART)],
    ids=["both ahead", "minting ahead", "pruning ahead", "both behind"],
)
async def test_an_entry_is_kept_for_clocks_that_differ_at_both_ends(
    issuer: IssuerHarness, minting: int, pruning: int
) -> None:
    """R50: it outlives its token at a verifier, whose clock is that of the revocation.

    The token has the longest lifetime, and the verifier the longest leeway.
    """
    await issuer.create_user("alice", PASSWORD)
    issuer.issuer.tokens.access_tokens._access_ttl = LONGEST_ACCESS_TTL
    issuer.clock.advance(minting)
    tokens = await log_in(issuer)
    issuer.clock.advance(-minting)
    revoked = await issuer.client.post("/auth/logout", headers=tokens.bearer)
    assert revoked.status_code == 200, revoked.text
    last_at_verifier = tokens.claims["exp"] + MAX_LEEWAY
    issuer.clock.advance(last_at_verifier + pruning - issuer.clock.now)
    await issuer.issuer.feed.feed.prune()
    page = await FakeVerifier(issuer).take_snapshot()
    assert [entry.key for entry in page.entries] == [tokens.sid]
    # And not for ever.
    issuer.clock.advance(4 * CLOCK_ALLOWANCE)
    await issuer.issuer.feed.feed.prune()
    page = await FakeVerifier(issuer).take_snapshot()
    assert not page.entries
