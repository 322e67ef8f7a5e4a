"""Rows of accounts to import: CSV with a header, or JSON lines, each read by itself.

A row that cannot be used becomes a `RefusedRow` that still has its line as it stood in
the file, so that nothing is lost: those lines are mended and imported again.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import orjson

from issuer.roles.role_limits import MAX_ROLES_PER_USER
from shared.json_members import DuplicateMemberError, require_distinct_members

_MAX_LINE_BYTES: Final = 16_384
_FIELDS: Final = ("username", "roles", "password", "password_hash")
_BOM: Final = b"\xef\xbb\xbf"
_BETWEEN_ROLES: Final = re.compile(r"[ ;]+")


class UserRow(NamedTuple):
    """An account to make; nothing of it is checked but its form.

    Attributes:
        line: number in the file, from 1.
        raw: the line as it stood there, with its end.
        username: as written.
        roles: names.
        password: None: none was given.
        password_hash: as `PasswordHasher` stores it; None: none was given.
    """

    line: int
    raw: bytes
    username: str
    roles: tuple[str, ...]
    password: str | None
    password_hash: str | None


class RefusedRow(NamedTuple):
    """A row that was not used: its line, the field that is wrong, and the rule."""

    line: int
    raw: bytes
    field: str
    rule: str


class _BadRowError(ValueError):
    """Carries field and rule of a row that cannot be used."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(field, rule)
        self.field = field
        self.rule = rule


class UserRows:
    """Reads a file's lines as they come.

    The first line decides: one that begins with `{` is JSON. CSV begins with a header
    that names `username` and any of `roles`, `password` and `password_hash`; the roles
    of a cell stand with spaces or semicolons between. An empty cell counts as left out.

    Args:
        lines: each with its line end.

    Attributes:
        header: the header's line as it stood in the file; empty for JSON lines.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = lines
        self.header = b""

    def __iter__(self) -> Iterator[UserRow | RefusedRow]:
        """Yield the rows, empty lines left out.

        The header of a CSV file that cannot be used is the last row.
        """
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
                    yield _read_row(number, raw, _parse_json(line))
                elif names is None:
                    names = _read_header(line)
                    self.header = raw
                else:
                    yield _read_row(number, raw, _parse_csv(line, names))
            except _BadRowError as error:
                yield RefusedRow(number, raw, error.field, error.rule)
                if not is_json and names is None:
                    return


def _read_row(line: int, raw: bytes, row: Mapping[Any, Any]) -> UserRow:
    if not row.keys() <= set(_FIELDS):
        raise _BadRowError("row", f"only {', '.join(_FIELDS)} are known here")
    username = row.get("username")
    if not isinstance(username, str):
        raise _BadRowError("username", "must be a string")
    roles = row.get("roles", ())
    if not isinstance(roles, list | tuple) or not all(
        isinstance(role, str) for role in roles
    ):
        raise _BadRowError("roles", "must be a list of strings")
    if len(roles) > MAX_ROLES_PER_USER:
        raise _BadRowError("roles", f"must be {MAX_ROLES_PER_USER} at most")
    for field in ("password", "password_hash"):
        if not isinstance(row.get(field), str | None):
            raise _BadRowError(field, "must be a string")
    password, password_hash = row.get("password"), row.get("password_hash")
    if password is not None and password_hash is not None:
        raise _BadRowError("password", "must not be given beside password_hash")
    if "\0" in "".join((username, *roles, password or "", password_hash or "")):
        raise _BadRowError("row", "must not hold a NUL")
    return UserRow(line, raw, username, tuple(roles), password, password_hash)


def _parse_json(line: bytes) -> Mapping[str, Any]:
    _require_length(line)
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise _BadRowError("row", "must be JSON in UTF-8 (RFC 8259)") from None
    if not isinstance(row, dict):
        raise _BadRowError("row", "must be a JSON object")
    try:
        require_distinct_members(line, row)
    except DuplicateMemberError as error:
        raise _BadRowError(error.name or "row", error.rule) from None
    return row


def _split_csv(line: bytes) -> list[str]:
    _require_length(line)
    try:
        # One line is one row: no cell holds a line end.
        (cells,) = csv.reader([line.decode().rstrip("\r\n")], strict=True)
    except (UnicodeDecodeError, ValueError, csv.Error):
        raise _BadRowError("row", "must be CSV in UTF-8 (RFC 4180)") from None
    return cells


def _read_header(line: bytes) -> tuple[str, ...]:
    names = tuple(cell.strip() for cell in _split_csv(line))
    is_distinct = len(set(names)) == len(names)
    if not {"username"} <= set(names) <= set(_FIELDS) or not is_distinct:
        rule = f"must name username, and at most {', '.join(_FIELDS[1:])} beside"
        raise _BadRowError("header", rule)
    return names


def _parse_csv(line: bytes, names: tuple[str, ...]) -> Mapping[str, Any]:
    cells = _split_csv(line)
    if len(cells) != len(names):
        raise _BadRowError("row", f"must have {len(names)} cells")
    row: dict[str, Any] = {
        name: cell for name, cell in zip(names, cells, strict=True) if cell
    }
    if "roles" in row:
        row["roles"] = [role for role in _BETWEEN_ROLES.split(row["roles"]) if role]
    return row


def _require_length(line: bytes) -> None:
    if len(line) > _MAX_LINE_BYTES:
        raise _BadRowError("row", f"must not be over {_MAX_LINE_BYTES} bytes")
