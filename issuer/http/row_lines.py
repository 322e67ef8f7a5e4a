"""Rows of a file, each read by itself: CSV with a header, or JSON lines.

A row that cannot be used becomes a refusal with its line, field and rule; the rows
after it are still read.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import orjson

from shared.jose.json_members import DuplicateMemberError, require_distinct_members

Row = TypeVar("Row")
_BOM: Final = b"\xef\xbb\xbf"


class BadRowError(ValueError):
    """A row that cannot be used; carries the field and the rule."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(field, rule)
        self.field = field
        self.rule = rule


@dataclass(frozen=True, slots=True)
class RowForm:
    """The fields of a kind of row.

    Attributes:
        required: names that a CSV header must have.
        optional: names that it may have.
        max_line_bytes: a longer line is refused.
        convert_cells: makes a row from the cells of a CSV line that are not empty;
            raises `BadRowError`.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...]
    max_line_bytes: int
    convert_cells: Callable[[dict[str, str]], Mapping[str, Any]]

    def require_known(self, row: Mapping[Any, Any]) -> None:
        """Return when the row has no other fields.

        Raises:
            BadRowError: when it has.
        """
        known = self.required + self.optional
        if not row.keys() <= set(known):
            raise BadRowError("row", f"only {', '.join(known)} are known here")

    def read_json(self, line: bytes) -> Mapping[str, Any]:
        """Return the row of a JSON line.

        Raises:
            BadRowError: when it is not one JSON object in UTF-8, or has a member twice.
        """
        self._require_length(line)
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            raise BadRowError("row", "must be JSON in UTF-8 (RFC 8259)") from None
        if not isinstance(row, dict):
            raise BadRowError("row", "must be a JSON object")
        try:
            require_distinct_members(line, row)
        except DuplicateMemberError as error:
            raise BadRowError(error.name or "row", error.rule) from None
        self.require_known(row)
        return row

    def read_header(self, line: bytes) -> tuple[str, ...]:
        """Return the names in a CSV header, in their order.

        Raises:
            BadRowError: when a required name is missing, or one is unknown or repeated.
        """
        names = tuple(cell.strip() for cell in self._split_csv(line))
        is_distinct = len(set(names)) == len(names)
        is_known = set(self.required) <= set(names) <= {*self.required, *self.optional}
        if not is_known or not is_distinct:
            required, optional = " and ".join(self.required), ", ".join(self.optional)
            rule = f"must name {required}, and at most {optional} beside"
            raise BadRowError("header", rule)
        return names

    def read_csv(self, line: bytes, names: tuple[str, ...]) -> Mapping[str, Any]:
        """Return the row of a CSV line; an empty cell counts as left out.

        Raises:
            BadRowError: when the line has another number of cells, or is not CSV.
        """
        cells = self._split_csv(line)
        if len(cells) != len(names):
            raise BadRowError("row", f"must have {len(names)} cells")
        filled = {name: cell for name, cell in zip(names, cells, strict=True) if cell}
        return self.convert_cells(filled)

    def _split_csv(self, line: bytes) -> list[str]:
        self._require_length(line)
        try:
            # One line is one row: no cell contains a line end.
            (cells,) = csv.reader([line.decode().rstrip("\r\n")], strict=True)
        except (UnicodeDecodeError, ValueError, csv.Error):
            raise BadRowError("row", "must be CSV in UTF-8 (RFC 4180)") from None
        return cells

    def _require_length(self, line: bytes) -> None:
        if len(line) > self.max_line_bytes:
            raise BadRowError("row", f"must not be over {self.max_line_bytes} bytes")


class RowLines(Generic[Row]):
    """Reads the lines of a file one by one.

    The first line decides the format: one that begins with `{` is JSON. Otherwise it is
    the CSV header. Empty lines are skipped.

    Args:
        lines: each with its line end.
        form: the fields of the rows.
        read: makes the result from line number, raw line and row; raises `BadRowError`.
        refuse: makes the result for a row that cannot be used.

    Attributes:
        header: the header's line as it is in the file; empty for JSON lines.
    """

    def __init__(
        self,
        lines: Iterable[bytes],
        form: RowForm,
        *,
        read: Callable[[int, bytes, Mapping[str, Any]], Row],
        refuse: Callable[[int, bytes, BadRowError], Row],
    ) -> None:
        self._lines = lines
        self._form = form
        self._read = read
        self._refuse = refuse
        self.header = b""

    def __iter__(self) -> Iterator[Row]:
        """Yield one result for each row.

        After a CSV header that cannot be used nothing follows: the columns are unknown.
        """
        form = self._form
        names: tuple[str, ...] | None = None
        is_json: bool | None = None
        for number, raw in enumerate(self._lines, 1):
            line = raw.removeprefix(_BOM) if number == 1 else raw
            if not line.strip():
                continue
            if is_json is None:
                is_json = line.lstrip().startswith(b"{")
            try:
                if is_json:
                    yield self._read(number, raw, form.read_json(line))
                elif names is None:
                    names = form.read_header(line)
                    self.header = raw
                else:
                    yield self._read(number, raw, form.read_csv(line, names))
            except BadRowError as error:
                yield self._refuse(number, raw, error)
                if not is_json and names is None:
                    return
