"""Lists of user accounts: filtered, sorted, page by page.

A cursor has the end of the page before. It is bound to filter and order: with others it
would skip or repeat accounts without an error.
"""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import orjson
from sqlalchemy import ColumnElement, select

from issuer.accounts.users import UserView, build_view, read_roles
from issuer.errors import InvalidRequestError
from issuer.storage.db import Database
from issuer.storage.pages import KeysetOrder, Page, Pager, refuse_cursor
from issuer.storage.tables.roles import UserRole
from issuer.storage.tables.users import User
from shared.claims import MAX_NUMERIC_DATE, MAX_USERNAME_CHARS, is_plain_text
from shared.jose import base64url

MAX_PAGE: Final = 100
_DIGEST_BYTES: Final = 9
_MAX_TIME: Final = MAX_NUMERIC_DATE


class UserOrder(StrEnum):
    """The order of a list; `-` reverses it."""

    USERNAME = "username"
    USERNAME_DOWN = "-username"
    CREATED = "created_at"
    CREATED_DOWN = "-created_at"

    @property
    def is_descending(self) -> bool:
        """Whether the greatest comes first."""
        return self.value.startswith("-")

    @property
    def is_by_time(self) -> bool:
        """Whether it sorts by `created_at`; the id decides between equal times."""
        return self.value.endswith("created_at")


@dataclass(frozen=True, slots=True)
class UserFilter:
    """Conditions on accounts; all must apply. None: no condition.

    Attributes:
        username_prefix: the beginning of the name, in normal form.
        role: a role they hold.
        is_disabled: whether they are disabled.
        has_password: whether they have a password.
    """

    username_prefix: str | None = None
    role: str | None = None
    is_disabled: bool | None = None
    has_password: bool | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the filter in SQL."""
        found: list[ColumnElement[bool]] = []
        if self.username_prefix is not None:
            prefix = self.username_prefix
            found.append(User.username.startswith(prefix, autoescape=True))
        if self.role is not None:
            holders = select(UserRole.user_id).where(UserRole.role_name == self.role)
            found.append(User.id.in_(holders))
        if self.is_disabled is not None:
            is_enabled = User.disabled_at.is_(None)
            found.append(~is_enabled if self.is_disabled else is_enabled)
        if self.has_password is not None:
            is_empty = User.password_hash == ""
            found.append(~is_empty if self.has_password else is_empty)
        return found


class UserList:
    """Lists accounts.

    Args:
        database: has the accounts.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read_page(
        self, which: UserFilter, order: UserOrder, limit: int, cursor: str | None
    ) -> Page[UserView]:
        """Return one page.

        Args:
            which: the accounts.
            order: their order.
            limit: how many at most.
            cursor: `next_cursor` of the page before; None: the first page.

        Raises:
            InvalidRequestError: for a cursor that is not from a page of this filter and
                order.
            UnavailableError: when the database is away.
        """
        pager = build_pager(which, order)
        query = select(User).where(*which.conditions())
        page_query = pager.build_query(query, limit, cursor)
        async with self._database.read() as db:
            page = pager.cut((await db.scalars(page_query)).all(), limit)
            held = await read_roles(db, [user.id for user in page.rows])
        views = [build_view(user, held.get(user.id, [])) for user in page.rows]
        return Page(views, page.next_cursor)


def build_pager(which: UserFilter, order: UserOrder) -> Pager[User]:
    """Return the pager of the list with this filter and order."""
    # Names are unique, so their order needs no id.
    columns = (User.created_at, User.id) if order.is_by_time else (User.username,)
    return Pager(
        KeysetOrder(columns, order.is_descending),
        lambda last: _write_cursor(last, which, order),
        lambda cursor: _read_cursor(cursor, which, order)[: len(columns)],
    )


def normalise_prefix(text: str) -> str:
    """Return the beginning of a user name in normal form.

    Raises:
        InvalidRequestError: when no name can begin with it.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    prefix = unicodedata.normalize("NFKC", folded)
    if not 1 <= len(prefix) <= MAX_USERNAME_CHARS or not is_plain_text(prefix):
        rule = f"must have 1 to {MAX_USERNAME_CHARS} characters, none of them unseen"
        raise InvalidRequestError.of_field("username", rule)
    return prefix


def _write_cursor(last: User, which: UserFilter, order: UserOrder) -> str:
    value = last.created_at if order.is_by_time else last.username
    place = [_digest(which, order), value, last.id]
    return base64url.encode(orjson.dumps(place))


def _read_cursor(
    text: str, which: UserFilter, order: UserOrder
) -> tuple[int | str, str]:
    try:
        place = orjson.loads(base64url.decode(text.encode("ascii")))
        digest, value, user_id = place
    except TypeError:
        raise ValueError from None
    if digest != _digest(which, order):
        raise refuse_cursor(
            "must be used with the filter and the sort it was given for"
        )
    if not (_is_text(user_id) and _fits(value, order)):
        raise ValueError
    return value, user_id


def _fits(value: object, order: UserOrder) -> bool:
    """Return whether PostgreSQL accepts the value: no NUL, no number past its type."""
    if order.is_by_time:
        return type(value) is int and 0 <= value <= _MAX_TIME
    return _is_text(value)


def _is_text(value: object) -> bool:
    return type(value) is str and is_plain_text(value)


def _digest(which: UserFilter, order: UserOrder) -> str:
    digested = orjson.dumps([which, order])
    return base64url.encode(hashlib.sha256(digested).digest()[:_DIGEST_BYTES])
