"""Pages of a list: each begins after the last row of the page before (a keyset).

Unlike `OFFSET`, a later page does not read the pages before it, and rows that are added
or deleted meanwhile neither repeat nor hide others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    String,
    literal,
    tuple_,
)
from sqlalchemy.orm import InstrumentedAttribute

from issuer.errors import InvalidRequestError

Row = TypeVar("Row")
SelectT = TypeVar("SelectT", bound=Select[*tuple[Any, ...]])


@dataclass(frozen=True, slots=True)
class KeysetOrder:
    """An order that no two rows share a place in.

    Attributes:
        columns: sorted by, in this order; together they are unique. An index has them.
        is_descending: whether the greatest comes first.
    """

    columns: tuple[InstrumentedAttribute[Any], ...]
    is_descending: bool = False

    def sort(
        self, query: SelectT, limit: int, after: tuple[int | str, ...] | None
    ) -> SelectT:
        """Return the query of one page.

        Args:
            query: selects the whole list.
            limit: rows of the page at most.
            after: the columns' values in the last row of the page before; None for the
                first page.
        """
        if after is not None:
            query = query.where(self._follows(after))
        sorting = [c.desc() if self.is_descending else c.asc() for c in self.columns]
        return query.order_by(*sorting).limit(limit)

    def _follows(self, after: tuple[int | str, ...]) -> ColumnElement[bool]:
        if len(self.columns) == 1:
            (column,), (value,) = self.columns, after
            return column < value if self.is_descending else column > value
        # As one comparison of rows, this is where the index is entered. Spelt out with
        # OR and AND, each page would read all rows of the pages before it.
        place = tuple_(*self.columns)
        last = tuple_(
            *(
                literal(value, BigInteger if isinstance(value, int) else String)
                for value in after
            )
        )
        return place < last if self.is_descending else place > last


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """A page of a list.

    Attributes:
        rows: the rows to show.
        next_cursor: the cursor of the next page; None after the last.
    """

    rows: Sequence[Row]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Pager(Generic[Row]):
    """Reads a list page by page; a cursor has the end of the page before.

    Attributes:
        order: of the list.
        write_cursor: returns the cursor of the page that begins after a row.
        read_cursor: returns the values of the order's columns in that row; raises
            `ValueError` for a text that `write_cursor` never returns.
    """

    order: KeysetOrder
    write_cursor: Callable[[Row], str]
    read_cursor: Callable[[str], tuple[int | str, ...]]

    def build_query(self, query: SelectT, limit: int, cursor: str | None) -> SelectT:
        """Return the query of one page and one row more, for `cut`.

        Args:
            query: selects the whole list.
            limit: rows of the page at most.
            cursor: `next_cursor` of the page before; None for the first page.

        Raises:
            InvalidRequestError: when the cursor is not from a page of this list.
        """
        after = None
        if cursor is not None:
            try:
                after = self.read_cursor(cursor)
            except ValueError:
                raise refuse_cursor("must be one that an earlier page gave") from None
        return self.order.sort(query, limit + 1, after)

    def cut(self, found: Sequence[Row], limit: int) -> Page[Row]:
        """Return the page of the rows found.

        Args:
            found: the rows of `build_query`: the one more shows that another page
                follows.
            limit: as in `build_query`.
        """
        rows = found[:limit]
        has_next = len(found) > limit
        return Page(rows, self.write_cursor(rows[-1]) if has_next else None)


def refuse_cursor(rule: str) -> InvalidRequestError:
    """Return the refusal of a cursor that breaks this rule."""
    return InvalidRequestError.of_field("cursor", rule)
