"""Pages of a list: each begins after the last row of the page before (a keyset).

Unlike `OFFSET`, a later page does not read the pages before it, and rows that are added
or deleted meanwhile neither repeat nor hide others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    String,
    literal,
    tuple_,
)
from sqlalchemy.orm import InstrumentedAttribute

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


def cut_page(found: Sequence[Row], limit: int) -> tuple[Sequence[Row], Row | None]:
    """Return the rows to show and the last of them if others follow, else None.

    Args:
        found: the rows of a query for one more than `limit`: the one more tells whether
            another page follows.
        limit: rows to show.
    """
    shown = found[:limit]
    return shown, shown[-1] if len(found) > limit else None
