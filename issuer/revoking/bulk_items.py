"""The rows of a bulk revocation: a kind and a key, each read by itself.

A row that cannot be used becomes a `RefusedItem` with its number, the field and the
rule; the other rows are still used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from issuer.http.row_lines import BadRowError, RowForm, RowLines
from shared.claims import MAX_IDENTIFIER_CHARS, MAX_NUMERIC_DATE, is_identifier


class BulkKind(StrEnum):
    """The kind of a row's key."""

    JTI = "jti"  #: one access token
    SID = "sid"  #: a session, a personal key by its id, or one grant of a client
    USER = "user"  #: a user by id: all sessions and personal keys
    USERNAME = "username"  #: a user by name: the same
    CLIENT = "client"  #: the tokens a client has for itself
    KID = "kid"  #: every token of a signing key, which leaves the JWKS


class BulkItem(NamedTuple):
    """One thing to revoke.

    Attributes:
        line: number of its row, from 1.
        kind: what the key names.
        key: the name.
        exp: the token's `exp`, Unix seconds, if it is known; for `jti` only.
    """

    line: int
    kind: BulkKind
    key: str
    exp: int | None = None


class RefusedItem(NamedTuple):
    """A row that was not used: its number, the field that is wrong, and the rule."""

    line: int
    field: str
    rule: str


def read_item(line: int, row: object) -> BulkItem | RefusedItem:
    """Read one row, a JSON object `{"kind", "key", "exp"?}`."""
    try:
        if not isinstance(row, Mapping):
            raise BadRowError("row", "must be a JSON object")
        _FORM.require_known(row)
        return _read_row(line, row)
    except BadRowError as error:
        return RefusedItem(line, error.field, error.rule)


def read_lines(lines: Iterable[bytes]) -> Iterator[BulkItem | RefusedItem]:
    """Return the rows of a file: JSON lines, or CSV with a header.

    The header names `kind`, `key` and perhaps `exp`, in any order.

    Args:
        lines: each with its line end.
    """
    rows: RowLines[BulkItem | RefusedItem] = RowLines(
        lines,
        _FORM,
        read=lambda line, _raw, row: _read_row(line, row),
        refuse=lambda line, _raw, error: RefusedItem(line, error.field, error.rule),
    )
    return iter(rows)


def _read_row(line: int, row: Mapping[Any, Any]) -> BulkItem:
    try:
        kind = BulkKind(row.get("kind", ""))
    except ValueError:
        rule = f"must be one of {', '.join(BulkKind)}"
        raise BadRowError("kind", rule) from None
    key = row.get("key")
    if not isinstance(key, str) or not is_identifier(key):
        rule = f"must have 1 to {MAX_IDENTIFIER_CHARS} characters, none of them unseen"
        raise BadRowError("key", rule)
    exp = row.get("exp")
    if exp is not None and kind is not BulkKind.JTI:
        raise BadRowError("exp", "belongs to a jti only")
    if exp is not None and (type(exp) is not int or not 0 < exp <= MAX_NUMERIC_DATE):
        raise BadRowError("exp", "must be Unix seconds")
    return BulkItem(line, kind, key, exp)


def _convert_cells(cells: dict[str, str]) -> Mapping[str, Any]:
    row: dict[str, Any] = dict(cells)
    exp = cells.get("exp")
    if exp is not None:
        if not (exp.isascii() and exp.isdecimal() and len(exp) <= 12):
            raise BadRowError("exp", "must be Unix seconds")
        row["exp"] = int(exp)
    return row


_FORM: Final = RowForm(
    required=("kind", "key"),
    optional=("exp",),
    max_line_bytes=4_096,
    convert_cells=_convert_cells,
)
