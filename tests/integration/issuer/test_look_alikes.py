"""Accounts whose names look alike, at each way of giving a name (R36)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from alembic import command
from sqlalchemy import insert, select, text, update

from issuer.accounts.skeletons import make_skeleton
from issuer.accounts.user_changes import UserChange
from issuer.accounts.user_rows import UserRow
from issuer.acts import Caller
from issuer.errors import ConflictError
from issuer.migrations import upgrading
from issuer.storage.db import Database
from issuer.storage.tables.users import User
from tests.support.issuer_harness import IssuerHarness
from tests.support.issuer_story import PASSWORD, Tokens, log_in, post_login, read_audit
from tests.support.login_story import log_in_admin

ROOT_ALIKE = "r\u043e\u043et"
REFUSED = "The user name looks like one that is taken."
OTHER_PASSWORD = "another horse battery"


@pytest.fixture
async def admin(issuer: IssuerHarness) -> Tokens:
    """`root` is there, and signed in."""
    return await log_in_admin(issuer)


async def post_user(
    issuer: IssuerHarness, admin: Tokens, username: str
) -> httpx.Response:
    return await issuer.client.post(
        "/users",
        json={"username": username, "password": OTHER_PASSWORD},
        headers=admin.bearer,
    )


async def rename(
    issuer: IssuerHarness, admin: Tokens, user_id: str, username: str
) -> httpx.Response:
    url = f"/users/{user_id}"
    there = await issuer.client.get(url, headers=admin.bearer)
    return await issuer.client.patch(
        url,
        json={"username": username},
        headers=admin.bearer | {"If-Match": there.headers["ETag"]},
    )


def is_refused_as_look_alike(answer: httpx.Response) -> bool:
    assert answer.status_code == 409, answer.text
    assert answer.json()["code"] == "name_looks_taken"
    assert answer.json()["detail"] == REFUSED
    return True


async def test_r36_a_cyrillic_root_is_no_second_root(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    assert is_refused_as_look_alike(await post_user(issuer, admin, ROOT_ALIKE))
    answer = await post_user(issuer, admin, "root")
    assert answer.json()["detail"] == "The user name is taken."
    made = await post_user(issuer, admin, "alice")
    assert made.status_code == 201
    renamed = await rename(issuer, admin, made.json()["id"], ROOT_ALIKE)
    assert is_refused_as_look_alike(renamed)


@pytest.mark.parametrize("name", ["\u3164", "ro\ufe0fot", "\u034froot", "\u2800"])
async def test_r36_a_name_that_shows_as_nothing_is_refused(
    issuer: IssuerHarness, admin: Tokens, name: str
) -> None:
    answer = await post_user(issuer, admin, name)
    assert answer.status_code == 400
    assert [each["field"] for each in answer.json()["problems"]] == ["username"]
    made = await post_user(issuer, admin, "alice")
    renamed = await rename(issuer, admin, made.json()["id"], name)
    assert renamed.status_code == 400


async def test_a_user_may_be_renamed_to_a_look_alike_of_the_own_name(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    made = (await post_user(issuer, admin, "paul")).json()
    assert (await rename(issuer, admin, made["id"], "pau1")).status_code == 200
    # The old name was deleted with it, and no other name looks like it.
    assert is_refused_as_look_alike(await post_user(issuer, admin, "paul"))
    assert (await rename(issuer, admin, made["id"], "peter")).status_code == 200
    assert (await post_user(issuer, admin, "pau1")).status_code == 201


async def test_one_of_two_look_alikes_created_concurrently_is_created(
    issuer: IssuerHarness,
) -> None:
    async def make(name: str) -> bool:
        try:
            await issuer.create_user(name, PASSWORD)
        except ConflictError:
            return False
        return True

    for number in range(5):
        names = (f"mary{number}", f"rnary{number}")
        done = await asyncio.gather(*map(make, names))
        assert sorted(done) == [False, True]


async def write_as_before(issuer: IssuerHarness, user_id: str, username: str) -> None:
    """Write an account as an older program does."""
    row = {"id": user_id, "username": username, "password_hash": ""}
    times = dict.fromkeys(("created_at", "updated_at", "password_changed_at"), 0)
    async with issuer.database.write() as db:
        await db.execute(
            insert(User.__table__).values(**row, **times, generation=0, version=1)
        )


@pytest.mark.parametrize("is_filled", [False, True], ids=["due", "filled"])
async def test_names_that_an_older_program_writes_count_too(
    issuer: IssuerHarness, admin: Tokens, is_filled: bool
) -> None:
    """R36: it runs beside during an upgrade and writes no skeleton."""
    await write_as_before(issuer, "u1", "mary")
    await issuer.create_user("bob", PASSWORD)
    async with issuer.database.write() as db:
        renamed = update(User).where(User.username == "bob")
        await db.execute(renamed.values(username="paul"))
    if is_filled:
        assert await issuer.issuer.accounts.look_alikes.fill() == 2
        assert await issuer.issuer.accounts.look_alikes.fill() == 0
    for name in ("rnary", "pau1"):
        assert is_refused_as_look_alike(await post_user(issuer, admin, name))
    assert (await post_user(issuer, admin, "b0b")).status_code == 201


async def test_accounts_that_looked_alike_before_go_on(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    alice = await issuer.create_user("alice", PASSWORD)
    await issuer.create_user("x", PASSWORD)
    await issuer.create_user("y", PASSWORD)
    before = {"x": "\u0430lice", "y": "ali\ufe0fce"}
    async with issuer.database.write() as db:
        for name, renamed in before.items():
            one = update(User).where(User.username == name)
            await db.execute(one.values(username=renamed, skeleton_of=None))
    await issuer.issuer.accounts.look_alikes.fill()
    for name in ("alice", *before.values()):
        await log_in(issuer, name)
    # Any other change is allowed: only a new name is checked.
    url = f"/users/{getattr(alice, 'id')}"  # noqa: B009
    there = await issuer.client.get(url, headers=admin.bearer)
    answer = await issuer.client.patch(
        url,
        json={"username": "alice", "roles": ["admin"]},
        headers=admin.bearer | {"If-Match": there.headers["ETag"]},
    )
    assert answer.status_code == 200, answer.text
    assert is_refused_as_look_alike(await post_user(issuer, admin, "al\u0456ce"))


@pytest.mark.parametrize("is_trial", [False, True])
async def test_an_import_refuses_look_alikes_of_accounts_and_of_its_own_rows(
    issuer: IssuerHarness, admin: Tokens, is_trial: bool
) -> None:
    names = [ROOT_ALIKE, "mary", "rnary", "mary", "\u3164", "bob"]
    rows = [
        UserRow(line, name.encode(), name, (), None, None)
        for line, name in enumerate(names, 1)
    ]
    outcomes = issuer.issuer.accounts.user_import.run(
        rows, actor="admin", caller=Caller(), is_trial=is_trial
    )
    found = [outcome async for outcome in outcomes]
    assert [(each.created, each.already) for each in found] == [(2, 1)]
    shown = {each.line: each.rule for each in found[0].refused}
    assert shown[1] == shown[3] == "looks like a name that is taken"
    assert shown.keys() == {1, 3, 5}


async def test_renaming_oneself_needs_the_password(
    issuer: IssuerHarness,
) -> None:
    """R51: the name is the account's, and a stolen token must not take it."""
    await issuer.create_user("alice", PASSWORD)
    tokens = await log_in(issuer)
    there = await issuer.client.get("/users/me", headers=tokens.bearer)
    headers = tokens.bearer | {"If-Match": there.headers["ETag"]}

    async def ask(**body: str) -> httpx.Response:
        return await issuer.client.patch("/users/me", json=body, headers=headers)

    answer = await ask(username="eve")
    assert answer.status_code == 400
    assert answer.json()["problems"] == [{"field": "password", "rule": "is required"}]
    answer = await ask(username="eve", password=OTHER_PASSWORD)
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_credentials")
    assert len(await read_audit(issuer, "password.proof_failed")) == 1
    answer = await ask(username="alicia", password=PASSWORD)
    assert answer.status_code == 200, answer.text
    await log_in(issuer, "alicia")


async def test_a_proof_is_void_once_the_account_has_changed(
    issuer: IssuerHarness,
) -> None:
    """A logout everywhere, or another password, comes between proof and rename."""
    await issuer.create_user("alice", PASSWORD)
    user_id = (await log_in(issuer)).claims["sub"]
    async with issuer.database.read() as db:
        proved = await db.get(User, user_id)
    await issuer.issuer.sessions.logout.log_out_everywhere(
        user_id, Caller(), actor="admin"
    )
    changes = issuer.issuer.accounts.user_changes
    with pytest.raises(ConflictError, match="changed at the same time"):
        await changes.change(
            user_id,
            UserChange(username="eve"),
            lambda _user: None,
            actor=user_id,
            caller=Caller(),
            proved=proved,
        )


async def test_guesses_at_the_password_of_a_rename_wait_as_those_of_a_login(
    issuer: IssuerHarness,
) -> None:
    """R34."""
    await issuer.create_user("alice", PASSWORD)
    tokens = await log_in(issuer)
    there = await issuer.client.get("/users/me", headers=tokens.bearer)
    headers = tokens.bearer | {"If-Match": there.headers["ETag"]}
    statuses = []
    for _ in range(issuer.settings.login_free_failures + 1):
        body = {"username": "eve", "password": OTHER_PASSWORD}
        answer = await issuer.client.patch("/users/me", json=body, headers=headers)
        statuses.append(answer.status_code)
    assert statuses == [401] * issuer.settings.login_free_failures + [429]


@pytest.mark.parametrize("typed", [" alice", "alice\n", "\tAlice\u00a0", "\u2003alice"])
async def test_blanks_around_a_pasted_name_do_not_refuse_a_login(
    issuer: IssuerHarness, typed: str
) -> None:
    await issuer.create_user("alice", PASSWORD)
    await log_in(issuer, typed)
    # They count as the name's own failures, and as no other's.
    for _ in range(issuer.settings.login_free_failures):
        assert (await post_login(issuer, typed, "wrong")).status_code == 401
    assert (await post_login(issuer, "alice", "wrong")).status_code == 429


async def test_skeletons_are_looked_up_in_indices(issuer: IssuerHarness) -> None:
    """100,000 accounts are not read for each new name."""
    explain = "EXPLAIN QUERY PLAN" if issuer.database.is_sqlite else "EXPLAIN"
    queries = {
        "ix_users_name_skeleton": "SELECT username FROM users WHERE name_skeleton IN"
        " ('a', 'b') AND skeleton_of = username AND id <> 'x'",
        "ix_users_skeleton_due": "SELECT username FROM users WHERE"
        " (skeleton_of IS NULL OR skeleton_of <> username) AND id <> 'x'",
    }
    async with issuer.database.write() as db:
        if not issuer.database.is_sqlite:
            await db.execute(text("SET LOCAL enable_seqscan = off"))
        for index, query in queries.items():
            plan = (await db.execute(text(f"{explain} {query}"))).all()
            assert index in str(plan), plan


async def test_the_migration_writes_the_skeletons_there_are(
    tmp_path: Path,
) -> None:
    """Accounts of before count from the first new name on."""
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/issuer.db", may_create=True)
    config = upgrading.make_config()

    def upgrade(connection: object, revision: str) -> None:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    async with database.write() as db:
        await (await db.connection()).run_sync(upgrade, "0008")
        await db.execute(
            text(
                "INSERT INTO users (id, username, password_hash, generation, version,"
                " created_at, updated_at, password_changed_at)"
                " VALUES ('u1', 'mary', '', 0, 1, 0, 0, 0)"
            )
        )
    async with database.write() as db:
        await (await db.connection()).run_sync(upgrade, "head")
    async with database.read() as db:
        user = (await db.scalars(select(User))).one()
    await database.close()
    assert (user.name_skeleton, user.skeleton_of) == (make_skeleton("mary"), "mary")
