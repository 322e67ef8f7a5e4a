"""Rows of accounts to import: CSV with a header, or JSON lines, each read by itself.

A row that cannot be used becomes a `RefusedRow` with its line exactly as it is in the
file, so that no row is lost: these lines can be corrected and imported again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from issuer.http.row_lines import BadRowError, RowForm, RowLines
from issuer.roles.role_limits import MAX_ROLES_PER_USER

_BETWEEN_ROLES: Final = re.compile(r"[ ;]+")


class UserRow(NamedTuple):
    """An account to make; only its form has been checked.

    Attributes:
        line: number in the file, from 1.
        raw: the line as it is there, with its end.
        username: not in normal form.
        roles: their names.
        password: None when the row has none.
        password_hash: in the form that `PasswordHasher` stores; None when the row has
            none.
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


class UserRows(RowLines[UserRow | RefusedRow]):
    """Reads the rows of a file.

    A CSV header names `username` and any of `roles`, `password` and `password_hash`;
    spaces or semicolons separate the roles of a cell.

    Args:
        lines: each with its line end.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        super().__init__(
            lines,
            _FORM,
            read=_read_row,
            refuse=lambda line, raw, error: RefusedRow(
                line, raw, error.field, error.rule
            ),
        )


def _read_row(line: int, raw: bytes, row: Mapping[Any, Any]) -> UserRow:
    username = row.get("username")
    if not isinstance(username, str):
        raise BadRowError("username", "must be a string")
    roles = row.get("roles", ())
    if not isinstance(roles, list | tuple) or not all(
        isinstance(role, str) for role in roles
    ):
        raise BadRowError("roles", "must be a list of strings")
    if len(roles) > MAX_ROLES_PER_USER:
        raise BadRowError("roles", f"must be {MAX_ROLES_PER_USER} at most")
    for field in ("password", "password_hash"):
        if not isinstance(row.get(field), str | None):
            raise BadRowError(field, "must be a string")
    password, password_hash = row.get("password"), row.get("password_hash")
    if password is not None and password_hash is not None:
        raise BadRowError("password", "must not be given beside password_hash")
    if "\0" in "".join((username, *roles, password or "", password_hash or "")):
        raise BadRowError("row", "must not hold a NUL")
    return UserRow(line, raw, username, tuple(roles), password, password_hash)


def _convert_cells(cells: dict[str, str]) -> Mapping[str, Any]:
    row: dict[str, Any] = dict(cells)
    if "roles" in cells:
        row["roles"] = [role for role in _BETWEEN_ROLES.split(cells["roles"]) if role]
    return row


_FORM: Final = RowForm(
    required=("username",),
    optional=("roles", "password", "password_hash"),
    max_line_bytes=16_384,
    convert_cells=_convert_cells,
)
