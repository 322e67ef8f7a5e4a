"""Lists of accounts: filters, orders, and cursors that hold to them."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Select, select, text
from sqlalchemy.dialects import postgresql, sqlite

from issuer.accounts.user_list import UserFilter, UserOrder, build_pager
from issuer.acts import Caller
from issuer.clients.client_rows import OLDEST_FIRST
from issuer.storage.tables.clients import Client
from issuer.storage.tables.users import User
from tests.support.issuer_harness import IssuerHarness
from tests.support.issuer_story import PASSWORD, Tokens, log_in

#: Two of a second, so that the id has to decide.
NAMES = ["al_ice", "alice", "alicia", "bob", "carol"]


@pytest.fixture
async def admin(issuer: IssuerHarness) -> Tokens:
    """An administrator, logged in; there are accounts of three different seconds."""
    accounts = issuer.issuer.accounts
    await accounts.users.create_admin("root", PASSWORD, caller=Caller())
    await issuer.issuer.roles.roles.create(
        "clerk", [], "", actor="system", caller=Caller()
    )
    for number, name in enumerate(NAMES):
        if number % 2 == 0:
            issuer.clock.advance(1)
        # No hash is needed for a list.
        roles = ["clerk"] if name in {"alice", "bob"} else []
        await accounts.users.create(name, None, roles, actor="system", caller=Caller())
    return await log_in(issuer, "root")


async def read_all(
    issuer: IssuerHarness, admin: Tokens, limit: int = 2, **query: str
) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    asked = {"limit": str(limit), **query}
    while True:
        answer = await issuer.client.get("/users", params=asked, headers=admin.bearer)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["users"]
        if page["next_cursor"] is None:
            return found
        assert len(page["users"]) == limit
        asked["cursor"] = page["next_cursor"]


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
@pytest.mark.parametrize("sort", ["username", "-username", "created_at", "-created_at"])
async def test_pages_in_any_order_list_each_account_once(
    issuer: IssuerHarness, admin: Tokens, sort: str, limit: int
) -> None:
    found = await read_all(issuer, admin, limit, sort=sort)
    column = sort.removeprefix("-")
    keys = [(user[column], user["id"]) for user in found]
    assert keys == sorted(keys, reverse=sort.startswith("-"))
    assert sorted(user["username"] for user in found) == sorted([*NAMES, "root"])


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"username": "ali"}, ["alice", "alicia"]),
        ({"username": "ALI"}, ["alice", "alicia"]),
        ({"username": "\uff21lic"}, ["alice", "alicia"]),
        ({"username": "al_"}, ["al_ice"]),
        ({"username": "%"}, []),
        ({"role": "clerk"}, ["alice", "bob"]),
        ({"role": "nobody"}, []),
        ({"disabled": "true"}, ["bob"]),
        ({"disabled": "false", "role": "clerk"}, ["alice"]),
        ({"has_password": "true"}, ["root"]),
        ({"role": "clerk", "username": "ali", "has_password": "false"}, ["alice"]),
    ],
)
async def test_all_conditions_of_a_filter_apply(
    issuer: IssuerHarness, admin: Tokens, query: dict[str, str], names: list[str]
) -> None:
    """R36: a name is looked for in its normal form."""
    (bob,) = await read_all(issuer, admin, username="bob")
    path = f"/users/{bob['id']}/disable"
    assert (await issuer.client.post(path, headers=admin.bearer)).status_code == 200
    found = await read_all(issuer, admin, limit=1, **query)
    assert [user["username"] for user in found] == names


async def test_a_page_continues_after_its_end_despite_deletions(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    first = (
        await issuer.client.get("/users?limit=2&sort=created_at", headers=admin.bearer)
    ).json()
    for user in first["users"]:
        if user["username"] != "root":
            await issuer.client.delete(f"/users/{user['id']}", headers=admin.bearer)
    query = {"limit": "100", "sort": "created_at", "cursor": first["next_cursor"]}
    rest = await issuer.client.get("/users", params=query, headers=admin.bearer)
    seen = [user["username"] for user in [*first["users"], *rest.json()["users"]]]
    assert sorted(seen) == sorted([*NAMES, "root"])


@pytest.mark.parametrize(
    "other",
    [
        {"sort": "-username"},
        {"sort": "created_at"},
        {"username": "a"},
        {"role": "clerk"},
        {"disabled": "false"},
    ],
)
async def test_a_cursor_is_good_for_its_own_filter_and_sort_alone(
    issuer: IssuerHarness, admin: Tokens, other: dict[str, str]
) -> None:
    first = await issuer.client.get("/users?limit=2", headers=admin.bearer)
    query = {"cursor": first.json()["next_cursor"], **other}
    answer = await issuer.client.get("/users", params=query, headers=admin.bearer)
    assert answer.status_code == 400
    assert answer.json()["problems"][0]["field"] == "cursor"
    # The size of a page is no part of it.
    query = {"cursor": first.json()["next_cursor"], "limit": "1"}
    answer = await issuer.client.get("/users", params=query, headers=admin.bearer)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "sort=id",
        "disabled=1",
        "disabled=",
        "has_password=yes",
        "username=",
        "username=a%00",
        "username=%ff",
        "cursor=W10",
        "cursor=bnVsbA",
        "cursor=%C3%A4",
        "username=a&username=b",
    ],
)
async def test_unreadable_parameters_are_refused(
    issuer: IssuerHarness, admin: Tokens, query: str
) -> None:
    """R5, R35: never taken for absent, and no 500 from the database."""
    answer = await issuer.client.get(f"/users?{query}", headers=admin.bearer)
    assert answer.status_code == 400


async def explain(issuer: IssuerHarness, query: Select[Any]) -> str:
    """Return the plan of a query; on PostgreSQL one for a table that is not tiny."""
    database = issuer.database
    dialect = sqlite.dialect() if database.is_sqlite else postgresql.dialect()
    shown = query.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
    async with database.write() as db:
        if database.is_sqlite:
            rows = await db.execute(text(f"EXPLAIN QUERY PLAN {shown}"))
            return "\n".join(str(row[3]) for row in rows)
        for way in ("seqscan", "bitmapscan", "sort"):
            await db.execute(text(f"SET LOCAL enable_{way} = off"))
        rows = await db.execute(text(f"EXPLAIN (COSTS OFF) {shown}"))
        return "\n".join(str(row[0]) for row in rows)


@pytest.mark.parametrize("order", list(UserOrder))
async def test_a_later_page_begins_where_it_begins_in_the_index(
    issuer: IssuerHarness, admin: Tokens, order: UserOrder
) -> None:
    """100,000 users took 15 s by date: each page read all the pages before it."""
    value = 1_795_353_633 if order.is_by_time else "alice"
    which = UserFilter(is_disabled=False)
    keyset = build_pager(which, order).order
    end = (value, "an-id") if order.is_by_time else (value,)
    query = keyset.sort(select(User).where(*which.conditions()), 101, end)
    plan = await explain(issuer, query)
    index = "ix_users_created_at_id" if order.is_by_time else "username"
    assert index in plan
    sign = "<" if order.is_descending else ">"
    if issuer.database.is_sqlite:
        columns = "(created_at,id)" if order.is_by_time else "username"
        assert f"({columns}{sign}" in plan
        assert "TEMP B-TREE" not in plan
    else:
        columns = "ROW(created_at, (id)::text)" if order.is_by_time else "username"
        (entered,) = [line for line in plan.splitlines() if "Index Cond:" in line]
        assert f"{columns} {sign}" in entered.replace("(username)::text", "username")
        assert "Sort" not in plan


async def test_a_later_page_of_clients_begins_in_the_index(
    issuer: IssuerHarness,
) -> None:
    end = (1_795_353_633, "gc_x")
    query = OLDEST_FIRST.order.sort(select(Client), 100, end)
    plan = await explain(issuer, query)
    assert "ix_clients_created_at_id" in plan
    entered = "created_at,id)>" if issuer.database.is_sqlite else "Index Cond: (ROW("
    assert entered in plan
