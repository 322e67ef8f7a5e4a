"""Pages by keyset: each row once, in order, whatever happens between two pages."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, delete, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from issuer.storage.pages import KeysetOrder, Page, Pager


class _Base(DeclarativeBase):
    """The tables of this test."""


class _Row(_Base):
    __tablename__ = "rows"
    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[int]


ENGINE = create_engine("sqlite://")
#: Many rows share a second.
ROWS = st.dictionaries(
    st.text("abc", min_size=1, max_size=3), st.integers(1, 3), min_size=1, max_size=12
)
ORDERS: list[tuple[KeysetOrder, Callable[[_Row], tuple[int | str, ...]]]] = [
    (KeysetOrder((_Row.id,)), lambda row: (row.id,)),
    (KeysetOrder((_Row.id,), is_descending=True), lambda row: (row.id,)),
    (KeysetOrder((_Row.created_at, _Row.id)), lambda row: (row.created_at, row.id)),
    (
        KeysetOrder((_Row.created_at, _Row.id), is_descending=True),
        lambda row: (row.created_at, row.id),
    ),
]


def walk(
    rows: dict[str, int],
    number: int,
    limit: int,
    between: Callable[[Session, _Row], Any],
) -> list[tuple[int | str, ...]]:
    """Return the places of all rows, page by page; `between` changes the table."""
    order, place = ORDERS[number]
    with Session(ENGINE) as db:
        _Base.metadata.drop_all(db.connection())
        _Base.metadata.create_all(db.connection())
        values = [{"id": id, "created_at": at} for id, at in rows.items()]
        db.execute(insert(_Row), values)
        seen: list[tuple[int | str, ...]] = []
        pager = Pager(
            order,
            write_cursor=lambda row: json.dumps(place(row)),
            read_cursor=lambda cursor: tuple(json.loads(cursor)),
        )
        cursor: str | None = None
        # Each page shows a row: a walk that repeats rows must not go on forever.
        for _ in range(100):
            found = db.scalars(pager.build_query(select(_Row), limit, cursor)).all()
            page = pager.cut(found, limit)
            assert len(page.rows) <= limit
            seen += map(place, page.rows)
            if page.next_cursor is None:
                return seen
            cursor = page.next_cursor
            between(db, page.rows[-1])
            db.expire_all()
        raise AssertionError("the pages do not end")


@pytest.mark.parametrize("number", range(len(ORDERS)))
@settings(deadline=None, max_examples=30)
@given(rows=ROWS, limit=st.integers(1, 4))
def test_every_row_comes_once_and_in_order(
    number: int, rows: dict[str, int], limit: int
) -> None:
    seen = walk(rows, number, limit, lambda db, last: None)
    every = [(at, id) if number > 1 else (id,) for id, at in rows.items()]
    assert seen == sorted(every, reverse=ORDERS[number][0].is_descending)


@pytest.mark.parametrize("number", range(len(ORDERS)))
@settings(deadline=None, max_examples=30)
@given(rows=ROWS, limit=st.integers(1, 4))
def test_rows_that_go_or_come_meanwhile_hide_and_repeat_no_other(
    number: int, rows: dict[str, int], limit: int
) -> None:
    added: list[str] = []

    def change(db: Session, last: _Row) -> None:
        # The row of the cursor itself goes, and others come before and after it.
        db.execute(delete(_Row).where(_Row.id == last.id))
        new = f"{last.id}-new{len(added)}"
        values = [
            {"id": new, "created_at": last.created_at},
            {"id": f"{len(added)}", "created_at": 2},
        ]
        if len(added) < 6:
            db.execute(insert(_Row), values)
            added.extend([new, f"{len(added)}"])

    seen = walk(rows, number, limit, change)
    ids = [str(place[-1]) for place in seen]
    assert len(set(ids)) == len(ids)
    assert set(rows) <= set(ids) <= {*rows, *added}
    assert seen == sorted(seen, reverse=ORDERS[number][0].is_descending)


def test_the_last_row_is_a_cursor_only_when_others_follow() -> None:
    pager = Pager(ORDERS[0][0], write_cursor=str, read_cursor=lambda cursor: (cursor,))
    assert pager.cut([], 2) == Page([], None)
    assert pager.cut([1, 2], 2) == Page([1, 2], None)
    assert pager.cut([1, 2, 3], 2) == Page([1, 2], "2")
