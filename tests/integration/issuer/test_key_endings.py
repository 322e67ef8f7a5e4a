"""Every way of ending all sessions of a user also ends the personal keys
(R49).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from issuer.acts import Caller
from issuer.revoking.bulk_filter import SessionFilter, read_network
from issuer.storage.tables.feed import FeedEntryRow
from issuer.storage.tables.personal_keys import PersonalKey
from tests.support.issuer_harness import (
    FakeClock,
    IssuerHarness,
    key_environment,
    make_settings,
    running_issuer,
)
from tests.support.issuer_story import (
    PASSWORD,
    Tokens,
    log_in,
    post_refresh,
    read_audit,
    read_feed,
)
from tests.support.oauth_clients import ClientUnderTest, add_role, create_client
from tests.support.personal_keys import (
    exchange,
    get_token,
    is_dead,
    list_keys,
    make_key,
)

ROOT = Path(__file__).resolve().parents[3]
NEW_PASSWORD = "another horse battery"


@dataclass
class Scenario:
    """Alice, her session and her keys; bob, who has a key too; and an administrator."""

    issuer: IssuerHarness
    root: Tokens
    alice: Tokens
    bob: Tokens
    keys: list[dict[str, Any]]
    spared: dict[str, Any]
    inspector: ClientUnderTest

    @property
    def user_id(self) -> str:
        return str(self.alice.claims["sub"])

    async def post(self, path: str, tokens: Tokens, **body: object) -> Any:
        answer = await self.issuer.client.post(
            path, json=body or None, headers=tokens.bearer
        )
        assert answer.status_code in {200, 201}, answer.text
        return answer.json()

    async def delete(self, path: str, tokens: Tokens) -> None:
        answer = await self.issuer.client.delete(path, headers=tokens.bearer)
        assert answer.status_code == 200, answer.text

    async def revoke_many(self, **body: object) -> Any:
        return await self.post("/revocations/bulk", self.root, **body)

    async def run(self, *arguments: str) -> None:
        """Run a command of the issuer in a process of its own."""
        settings = self.issuer.settings
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "issuer", *arguments),
            cwd=ROOT,
            env={
                **key_environment(),
                "ISSUER_URL": settings.url,
                "ISSUER_AUDIENCE": settings.audience,
                "ISSUER_DATABASE_URL": settings.database_url,
                "ISSUER_FEED_TOKEN": settings.feed_token.get_secret_value(),
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()


@pytest.fixture
async def scenario(sqlite_url: str) -> AsyncIterator[Scenario]:
    async with running_issuer(make_settings(sqlite_url)) as issuer:
        yield await build_scenario(issuer)


@pytest.fixture
async def any_scenario(issuer: IssuerHarness) -> Scenario:
    """On either database, for tests about SQL."""
    return await build_scenario(issuer)


async def build_scenario(issuer: IssuerHarness) -> Scenario:
    await add_role(issuer, "clerk", "orders:read orders:write")
    await add_role(issuer, "guest", "orders:read")
    await issuer.create_user("alice", PASSWORD, ["clerk"])
    await issuer.create_user("bob", PASSWORD, ["guest"])
    await issuer.issuer.accounts.users.create_admin("root", PASSWORD, caller=Caller())
    alice, bob = await log_in(issuer), await log_in(issuer, "bob")
    return Scenario(
        issuer,
        await log_in(issuer, "root"),
        alice,
        bob,
        [await make_key(issuer, alice) for _ in range(2)],
        await make_key(issuer, bob),
        await create_client(issuer, ["gatehouse:introspect"]),
    )


async def change_password(scenario: Scenario) -> None:
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    await scenario.post("/auth/password", scenario.alice, **body)


async def reset_password(scenario: Scenario) -> None:
    path = f"/users/{scenario.user_id}/password-reset"
    answer = await scenario.issuer.client.post(path, headers=scenario.root.bearer)
    body = {"reset_token": answer.json()["reset_token"], "new_password": NEW_PASSWORD}
    done = await scenario.issuer.client.post("/auth/password-reset", json=body)
    assert done.status_code == 200, done.text


async def disable(scenario: Scenario) -> None:
    await scenario.post(f"/users/{scenario.user_id}/disable", scenario.root)
    # Ended keys stay ended.
    await scenario.post(f"/users/{scenario.user_id}/enable", scenario.root)


async def delete(scenario: Scenario) -> None:
    await scenario.delete(f"/users/{scenario.user_id}", scenario.root)


async def log_out_everywhere(scenario: Scenario) -> None:
    await scenario.post("/auth/logout-all", scenario.alice)


async def end_all_sessions_of(scenario: Scenario) -> None:
    await scenario.delete(f"/users/{scenario.user_id}/sessions", scenario.root)


async def revoke_user(scenario: Scenario) -> None:
    await scenario.revoke_many(items=[{"kind": "user", "key": scenario.user_id}])


async def revoke_username(scenario: Scenario) -> None:
    await scenario.revoke_many(items=[{"kind": "username", "key": "ALICE"}])


async def revoke_sids(scenario: Scenario) -> None:
    items = [{"kind": "sid", "key": key["id"]} for key in scenario.keys]
    await scenario.revoke_many(items=items)


async def revoke_by_role(scenario: Scenario) -> None:
    await scenario.revoke_many(filter={"role": "clerk"})


async def run_revoke_user(scenario: Scenario) -> None:
    await scenario.run("revoke", "--user", "alice")


async def run_revoke_many(scenario: Scenario) -> None:
    await scenario.run("revoke-many", "--role", "clerk", "--yes")


async def revoke_own_keys(scenario: Scenario) -> None:
    for key in scenario.keys:
        await scenario.delete(f"/users/me/keys/{key['id']}", scenario.alice)


async def revoke_keys_of(scenario: Scenario) -> None:
    for key in scenario.keys:
        await scenario.delete(
            f"/users/{scenario.user_id}/keys/{key['id']}", scenario.root
        )


WAYS: list[Callable[[Scenario], Awaitable[None]]] = [
    change_password,
    reset_password,
    disable,
    delete,
    log_out_everywhere,
    end_all_sessions_of,
    revoke_user,
    revoke_username,
    revoke_sids,
    revoke_by_role,
    revoke_own_keys,
    revoke_keys_of,
]
COMMANDS = [run_revoke_user, run_revoke_many]


async def is_told(issuer: IssuerHarness, token: Tokens) -> bool:
    """Whether an entry of the feed refuses the token at every verifier to its end."""
    claims = token.claims
    async with issuer.database.read() as db:
        rows = (await db.scalars(select(FeedEntryRow))).all()
    return any(
        row.prune_at >= claims["exp"]
        and (
            (row.kind, row.key) == ("sid", claims["sid"])
            or (
                (row.kind, row.key) == ("user", claims["sub"])
                and row.minimum_generation > claims["gen"]
            )
        )
        for row in rows
    )


@pytest.mark.parametrize("end", WAYS, ids=lambda way: way.__name__)
async def test_every_ending_of_keys_ends_their_access_tokens(
    any_scenario: Scenario, end: Callable[[Scenario], Awaitable[None]]
) -> None:
    """R49, R50, R51: recovery ends the keys of a thief, and no other user's."""
    await require_ended(any_scenario, end)


@pytest.mark.parametrize("end", COMMANDS, ids=lambda way: way.__name__)
async def test_every_command_that_ends_keys_ends_their_access_tokens(
    sqlite_url: str, end: Callable[[Scenario], Awaitable[None]]
) -> None:
    """They have the machine's time, in which the keys must be alive."""
    clock = FakeClock(time.time_ns() // 1_000_000)
    async with running_issuer(make_settings(sqlite_url), clock) as issuer:
        await require_ended(await build_scenario(issuer), end)


async def require_ended(
    scenario: Scenario, end: Callable[[Scenario], Awaitable[None]]
) -> None:
    issuer = scenario.issuer
    tokens = [await get_token(issuer, key["key"]) for key in scenario.keys]
    spared = await get_token(issuer, scenario.spared["key"])
    await end(scenario)
    for key, token in zip(scenario.keys, tokens, strict=True):
        assert is_dead(await exchange(issuer, key["key"]))
        assert await is_told(issuer, token)
        assert await scenario.inspector.introspect(token.access_token) == {
            "active": False
        }
    assert not await is_told(issuer, spared)
    assert (await exchange(issuer, scenario.spared["key"])).status_code == 200
    # R50: also once every entry is pruned.
    issuer.clock.advance(7_500)
    await issuer.issuer.feed.feed.prune()
    assert await read_feed(issuer) == []
    for key in scenario.keys:
        assert is_dead(await exchange(issuer, key["key"]))


async def test_the_owner_may_keep_the_keys_through_a_new_password(
    scenario: Scenario,
) -> None:
    """An explicit choice; their tokens end all the same, for the generation rises."""
    token = await get_token(scenario.issuer, scenario.keys[0]["key"])
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    await scenario.post("/auth/password", scenario.alice, **body, keep_keys=True)
    assert await is_told(scenario.issuer, token)
    for key in scenario.keys:
        later = await get_token(scenario.issuer, key["key"])
        assert not await is_told(scenario.issuer, later)
    body = {"current_password": NEW_PASSWORD, "new_password": PASSWORD}
    again = await log_in(scenario.issuer, "alice", NEW_PASSWORD)
    for wrong in ("true", 1, None):
        answer = await scenario.issuer.client.post(
            "/auth/password", json=body | {"keep_keys": wrong}, headers=again.bearer
        )
        assert answer.status_code == 400
    await scenario.post("/auth/password", again, **body, keep_keys=False)
    assert is_dead(await exchange(scenario.issuer, scenario.keys[0]["key"]))
    facts = [
        event["facts"]
        for event in await read_audit(scenario.issuer, "password.changed")
    ]
    assert facts == [{"personal_keys": "kept"}, {"personal_keys": "ended"}]


async def test_the_document_shows_how_keys_are_kept_and_made(
    scenario: Scenario,
) -> None:
    """With an example of each: password, code, and the choice to keep keys."""
    document = (await scenario.issuer.client.get("/openapi.json")).json()

    def read_examples(path: str) -> list[dict[str, Any]]:
        body = document["paths"][path]["post"]["requestBody"]["content"]
        reference = body["application/json"]["schema"]["$ref"]
        schema = document["components"]["schemas"][reference.rpartition("/")[2]]
        return list(schema["examples"])

    assert [e.get("keep_keys") for e in read_examples("/auth/password")] == [None, True]
    made = read_examples("/users/me/keys")
    assert [sorted(e) for e in made] == [
        ["expires_in", "name", "password", "scopes"],
        ["code", "expires_in", "name", "password", "scopes"],
    ]


async def test_a_lost_role_narrows_a_key_and_ends_its_tokens(
    scenario: Scenario,
) -> None:
    """No session ends by it, so no key does."""
    issuer = scenario.issuer
    token = await get_token(issuer, scenario.keys[0]["key"])
    path = f"/users/{scenario.user_id}"
    shown = await issuer.client.get(path, headers=scenario.root.bearer)
    headers = {**scenario.root.bearer, "If-Match": shown.headers["ETag"]}
    answer = await issuer.client.patch(path, json={"roles": []}, headers=headers)
    assert answer.status_code == 200, answer.text
    assert await is_told(issuer, token)
    later = await get_token(issuer, scenario.keys[0]["key"])
    assert later.claims["scope"] == ""


async def test_the_end_of_single_sessions_leaves_the_keys(scenario: Scenario) -> None:
    """Of a session that ends by itself, or one by one, scripts know nothing."""
    await log_in(scenario.issuer)
    await scenario.delete("/auth/sessions", scenario.alice)
    await scenario.post("/auth/logout", scenario.alice)
    assert (await exchange(scenario.issuer, scenario.keys[0]["key"])).status_code == 200


async def test_a_key_ended_by_its_sid_is_recorded_with_its_owner(
    scenario: Scenario,
) -> None:
    key_id = scenario.keys[0]["id"]
    await scenario.issuer.issuer.sessions.logout.end_any(
        key_id, Caller(), actor="system"
    )
    assert is_dead(await exchange(scenario.issuer, scenario.keys[0]["key"]))
    (event,) = await read_audit(scenario.issuer, "session.ended")
    assert (event["subject"], event["facts"]) == (scenario.user_id, {"sid": key_id})


async def test_a_repeated_run_leaves_users_with_ended_keys_alone(
    scenario: Scenario,
) -> None:
    items = [{"kind": "username", "key": "alice"}]
    first = await scenario.revoke_many(items=items)
    assert first["counts"] == {"revoked": 1, "already": 0, "refused": 0}
    again = await scenario.revoke_many(items=items)
    assert again["counts"] == {"revoked": 0, "already": 1, "refused": 0}


# --- bulk by filter ------------------------------------------------------------------


FOUND: list[tuple[dict[str, Any], bool]] = [
    ({"role": "clerk"}, True),
    ({"role": "guest"}, False),
    ({"client_id": "gatehouse"}, True),
    ({"client_id": "gatehouse-key"}, True),
    ({"client_id": "gc_1"}, False),
    ({"address": "192.0.2.0/24"}, True),
    ({"address": "198.51.100.0/24"}, False),
    ({"started_since": 0}, True),
    ({"started_before": 0}, False),
    ({"role": "clerk", "address": "198.51.100.0/24"}, False),
]


async def test_a_filter_finds_keys_of_owners_without_sessions(
    issuer: IssuerHarness,
) -> None:
    """R49: "no living session" is not "no living token"."""
    await add_role(issuer, "clerk", "orders:read")
    await add_role(issuer, "guest", "")
    await issuer.create_user("alice", PASSWORD, ["clerk"])
    tokens = await log_in(issuer)
    keys = [(await make_key(issuer, tokens))["id"] for _ in range(3)]
    await make_key(issuer, tokens, expires_in=300)
    await issuer.client.post("/auth/logout", headers=tokens.bearer)
    issuer.clock.advance(1_000)
    for conditions, is_found in FOUND:
        wish = dict(conditions)
        if "address" in wish:
            wish["address"] = read_network(wish["address"])
        pages = SessionFilter(**wish).find_sids(
            issuer.database, issuer.clock.now, page=2
        )
        found = [sid async for page in pages for sid in page]
        assert found == (sorted(keys) if is_found else []), conditions


# --- deleted long after
# ----------------------------------------------------------------


async def count_keys(issuer: IssuerHarness) -> int:
    async with issuer.database.read() as db:
        return await db.scalar(select(func.count()).select_from(PersonalKey)) or 0


async def test_ended_and_expired_keys_are_deleted_after_the_retention(
    database_url: str,
) -> None:
    """R50: long after every entry about their tokens; and never a living one."""
    settings = make_settings(database_url, session_retention=86_400)
    async with running_issuer(settings) as issuer:
        await issuer.create_user("alice", PASSWORD)
        alice = await log_in(issuer)
        day = 86_400
        living = await make_key(issuer, alice, scopes=[], expires_in=30 * day)
        revoked = await make_key(issuer, alice, scopes=[], expires_in=30 * day)
        await make_key(issuer, alice, scopes=[], expires_in=3_600)
        path = f"/users/me/keys/{revoked['id']}"
        await issuer.client.delete(path, headers=alice.bearer)
        issuer.clock.advance(day)
        assert await issuer.issuer.sessions.session_list.prune() == 0
        assert await count_keys(issuer) == 3
        issuer.clock.advance(1)
        assert await issuer.issuer.sessions.session_list.prune() == 1
        issuer.clock.advance(3_600)
        assert await issuer.issuer.sessions.session_list.prune() == 1
        assert (await exchange(issuer, living["key"])).status_code == 200
        assert is_dead(await exchange(issuer, revoked["key"]))
        tokens = await log_in(issuer)
        assert [key["id"] for key in await list_keys(issuer, tokens)] == [living["id"]]


async def test_more_keys_than_one_batch_are_deleted_in_several(
    issuer: IssuerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("issuer.sessions.key_ending.PRUNE_BATCH", 2)
    monkeypatch.setattr("issuer.sessions.session_list._PRUNE_BATCH", 2)
    await issuer.create_user("alice", PASSWORD)
    alice = await log_in(issuer)
    for _ in range(5):
        await make_key(issuer, alice, scopes=[])
    async with issuer.database.write() as db:
        await db.execute(update(PersonalKey).values(revoked_at=1))
    assert await issuer.issuer.sessions.session_list.prune() == 5
    assert await count_keys(issuer) == 0
    assert (await post_refresh(issuer, alice.refresh_token)).status_code == 200
